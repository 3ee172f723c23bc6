"""Told to stop before there is anything to finish."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


def stop_at_once() -> None:
    """Ends with status 0 on SIGTERM, until the server handles it itself.

    As first process of a container, as in Kubernetes, this one does not get a signal that it does not handle:
    a pod that is deleted while it starts, or loads a bundle from a hub, would be there until it is killed.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
        # A signal that comes just before a read that waits does not interrupt it, and Python would call the
        # handler after the read only. Its number is in this pipe at once.
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        threading.Thread(target=_listen, args=(told,), name="early-stop", daemon=True).start()


def _stop(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)  # threads that load something need not be awaited


def _listen(told: int) -> None:
    while number := os.read(told, 1):
        if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is _stop:
            os._exit(0)
