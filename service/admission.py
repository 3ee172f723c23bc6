"""Which requests are let in: a bounded number of tiles at a time; and when the refused should return."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType

from service.errors import OverloadedError

# Weight of the latest batch in the measured throughput: follows a change of load within about ten batches.
_SMOOTHING = 0.2
_MAX_RETRY_AFTER_S = 60
_FIRST_GUESS_TILES_PER_S = 100  # until a batch was measured: what two ordinary cores give


# The admission of the request that is being worked on: what its work submits, by whatever way, was let in.
current: ContextVar[Admission | None] = ContextVar("admission", default=None)


class Admission:
    """Room for the tiles of one request, kept until they are in the queue or the `with` block is left."""

    def __init__(self, gate: Gate, tiles: int) -> None:
        self._gate = gate
        self._tiles = tiles
        self._token: Token[Admission | None] | None = None

    def use(self, tiles: int) -> None:
        """Tiles are in the queue now and count there."""
        used = min(tiles, self._tiles)
        self._tiles -= used
        self._gate.reserved -= used

    def __enter__(self) -> Admission:
        self._token = current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.reset(self._token)
        self.use(self._tiles)


class Gate:
    """Counts the tiles inside: those being prepared (`reserved`) and those in the queue.

    Args:
        capacity: tiles inside at a time.
        waiting: tells the tiles in the queue.
    """

    def __init__(self, capacity: int, waiting: Callable[[], int]) -> None:
        self._capacity = capacity
        self._waiting = waiting
        self.reserved = 0
        self._tiles_per_s = 0.0
        self._promised_until = 0.0

    @property
    def tiles_per_s(self) -> float:
        """The measured throughput."""
        return self._tiles_per_s or _FIRST_GUESS_TILES_PER_S

    def admit(self, tiles: int) -> Admission:
        """Lets a request in.

        Raises:
            OverloadedError: there is no room for all its tiles.
        """
        self.check(tiles)
        self.reserved += tiles
        return Admission(self, tiles)

    def check(self, tiles: int) -> None:
        """Raises OverloadedError unless there is room for so many tiles now."""
        inside = self.reserved + self._waiting()
        # An idle service takes a request of any allowed size: there is nothing to wait for.
        if inside and inside + tiles > self._capacity:
            raise OverloadedError(
                f"{tiles} tiles came, {inside} are waiting and at most {self._capacity} may wait",
                self._retry_after_s(inside, tiles),
            )

    def measure(self, tiles_per_s: float) -> None:
        """Takes notice of how fast a batch was."""
        self._tiles_per_s += (tiles_per_s - self._tiles_per_s) * (_SMOOTHING if self._tiles_per_s else 1)

    def _retry_after_s(self, inside: int, tiles: int) -> int:
        """Whole seconds until there should be room.

        Everyone who is refused at one moment must not be sent away to one and the same moment. So the refused
        stand in a line of their own, by the time each was told, no longer than the queue itself is: if they
        do not return, those told later wait too long by no more than that.
        """
        now, rate = time.monotonic(), self.tiles_per_s
        room_at = now + max(0, inside + tiles - self._capacity) / rate
        turn_at = min(max(room_at, self._promised_until), room_at + self._capacity / rate)
        self._promised_until = turn_at + tiles / rate
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(turn_at - now)))
