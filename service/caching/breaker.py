"""A circuit breaker: a service that keeps failing is left alone for a while, then tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

# Workers that lost one server together must not all come back at the same moment.
_JITTER = (0.75, 1.25)
_random = random.SystemRandom()


class Breaker:
    """Closed, calls go through. Open, none does but one trial at a time, at growing distances.

    Args:
        failures: in a row that open it.
        first_wait_s: until the first trial; doubled after each that fails.
        longest_wait_s: between trials.
        clock: seconds, monotonic.
        spread: what a wait is multiplied by.
    """

    def __init__(
        self,
        *,
        failures: int,
        first_wait_s: float,
        longest_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = lambda: _random.uniform(*_JITTER),
    ) -> None:
        self._limit = failures
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._spread = spread
        self._failures = 0
        self._wait_s = first_wait_s
        self._next_trial = 0.0
        self._on_trial = False
        self.is_open = False

    @property
    def wait_s(self) -> float:
        """Until the next trial may begin; 0 where nothing has to be waited for."""
        return max(0.0, self._next_trial - self._clock()) if self.is_open else 0.0

    def begin(self) -> bool:
        """Whether a call may be made now. Open and the wait over, this call is the trial."""
        if not self.is_open:
            return True
        if self.wait_s > 0:
            return False
        self._on_trial = True
        self._schedule()  # should this trial's outcome never be told
        return True

    def record(self, succeeded: bool) -> None:
        """Tells how a call went. Those begun before it opened change nothing while it is open."""
        if self.is_open:
            if self._on_trial:
                self._on_trial = False
                self._close() if succeeded else self._open(min(2 * self._wait_s, self._longest_wait_s))
        elif succeeded:
            self._failures = 0
        else:
            self._failures += 1
            if self._failures >= self._limit:
                self._open(self._first_wait_s)

    def _open(self, wait_s: float) -> None:
        self.is_open = True
        self._wait_s = wait_s
        self._schedule()

    def _close(self) -> None:
        self.is_open = False
        self._failures = 0

    def _schedule(self) -> None:
        self._next_trial = self._clock() + self._wait_s * self._spread()
