"""An answer must be read: whoever does not holds memory, or room in the spool, that others need."""

from __future__ import annotations

import asyncio

# A connection slower than this on average, either way, is none that anyone works with: it holds memory and
# a slot.
MIN_BYTES_PER_S = 1_000


class Unread:
    """Ends a connection whose client reads less than 1 kB/s of what waits to be sent.

    Args:
        transport: the connection.
        loop: that it belongs to.
        period_s: after which, again and again, it is looked at how much was read.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, period_s: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._period_s = period_s
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0

    def watch(self) -> None:
        """More waits than the system takes: nothing is added to it before most was read."""
        self.stop()
        self._waiting = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._period_s, self._check)

    def stop(self) -> None:
        """It was read, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        read = self._waiting - self._transport.get_write_buffer_size()
        if read < MIN_BYTES_PER_S * self._period_s:
            self._transport.abort()
        else:
            self.watch()
