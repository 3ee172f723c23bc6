"""How fast a run goes."""

from __future__ import annotations

import time
from datetime import timedelta


class Clock:
    """Tiles per second since the last restart."""

    def __init__(self, tiles_per_step: int) -> None:
        self._per_step = tiles_per_step
        self.restart()

    def restart(self) -> None:
        """Forget the steps so far."""
        self._started, self._steps = time.monotonic(), 0

    def count(self) -> None:
        """One step is done."""
        self._steps += 1

    def rate(self) -> float:
        """Tiles per second."""
        return self._steps * self._per_step / (time.monotonic() - self._started)

    def left(self, steps: int) -> str:
        """How long so many steps more take at this rate, as h:mm:ss."""
        return str(timedelta(seconds=round(steps * self._per_step / self.rate())))
