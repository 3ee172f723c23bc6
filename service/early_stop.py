"""Told to stop before there is anything to finish."""

from __future__ import annotations

import os
import signal


def stop_at_once() -> None:
    """Ends with status 0 on SIGTERM, until the server handles it itself.

    As first process of a container, as in Kubernetes, this one does not get a signal that it does not handle:
    a pod that is deleted while it starts, or loads a bundle from a hub, would be there until it is killed.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(
            signal.SIGTERM, lambda *_: os._exit(0)
        )  # threads that load something need not be awaited
