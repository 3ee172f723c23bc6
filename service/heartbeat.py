"""Whether a server's event loop turns: it says so every second, and its supervisor looks now and then.

A server without a supervisor has a thread that looks.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import structlog

log = structlog.get_logger()

EVERY_S = 1.0
# An event loop that has not turned for a minute answers nobody, and would not for hours.
LOOK_EVERY_S = 5.0
FROZEN_LOOKS = 12
_SAY_S = 1.0  # what keeps the event loop may be the log itself, which nobody reads
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
        self.started = False  # whether anything was heard at all
        self._missed = 0

    def look(self) -> int:
        """How many looks in a row, with this one, heard nothing.

        Looks are counted and not seconds: where everything stood still for a while (a paused container, a
        laptop that slept), who looks did as well, and that is one look.
        """
        came = b""
        with suppress(BlockingIOError):
            came = os.read(self._heard.fileno(), _AT_ONCE)
        self.started = self.started or bool(came)
        self._missed = 0 if came else self._missed + 1
        return self._missed

    def close(self) -> None:
        """Ends listening."""
        self._heard.close()


def own_heart() -> Heart:
    """A heart for a process without a supervisor, which ends itself when its event loop stands still.

    Whoever started it may start it again, as a container's restart policy does. Its start is not watched: a
    bundle may come from a hub, slowly.
    """
    faulthandler.enable()
    heard, told = multiprocessing.Pipe(duplex=False)
    threading.Thread(target=_watch, args=(Pulse(heard),), name="heartbeat", daemon=True).start()
    return Heart(told)


def _watch(pulse: Pulse) -> None:
    while True:
        time.sleep(LOOK_EVERY_S)
        missed = pulse.look()
        if not pulse.started or missed < FROZEN_LOOKS:
            continue
        if missed == FROZEN_LOOKS:
            threading.Thread(target=_say, args=(missed,), daemon=True).start()
            time.sleep(_SAY_S)
            # It writes where each of its threads is, and dies.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGABRT)
        else:
            os._exit(1)  # the first process of a container gets no signal that it does not handle


def _say(missed: int) -> None:
    log.error("frozen", pid=os.getpid(), silent_s=missed * LOOK_EVERY_S)
