"""Whether a worker's event loop turns: it says so every second, and the supervisor looks now and then."""

from __future__ import annotations

import os
from contextlib import suppress
from multiprocessing.connection import Connection

EVERY_S = 1.0
_AT_ONCE = 65_536  # bytes: all that a pipe holds


class Heart:
    """The worker's end.

    Args:
        told: the writing end of a pipe to the supervisor.
    """

    def __init__(self, told: Connection) -> None:
        self._told = told
        os.set_blocking(told.fileno(), False)

    def beat(self) -> None:
        """Tells that this process goes on. Never waits and never fails, whatever became of the supervisor."""
        with suppress(OSError):  # full: a supervisor that stands still has enough to read; broken: it is gone
            os.write(self._told.fileno(), b".")


class Pulse:
    """The supervisor's end.

    Args:
        heard: the reading end of the pipe.
    """

    def __init__(self, heard: Connection) -> None:
        self._heard = heard
        os.set_blocking(heard.fileno(), False)
        self._started = False
        self._missed = 0

    def look(self) -> int:
        """How many looks in a row, with this one, heard nothing; 0 before the first beat: a start takes time.

        Looks are counted and not seconds: where everything stood still for a while (a paused container, a
        laptop that slept), the supervisor did as well, and that is one look.
        """
        came = b""
        with suppress(BlockingIOError):
            came = os.read(self._heard.fileno(), _AT_ONCE)
        self._started = self._started or bool(came)
        self._missed = 0 if came else self._missed + self._started
        return self._missed

    def close(self) -> None:
        """Ends listening."""
        self._heard.close()
