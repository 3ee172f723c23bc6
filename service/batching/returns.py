"""When those who are refused should return, so that they find room."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

_MAX_RETRY_AFTER_S = 60
# How long the line of the refused may be, in full queues. If they do not return, others wait in vain behind
# them: so not without end.
_MAX_LINE = 4
# What is promised counts on this share of the measured throughput only: whoever returns costs work on top of
# the engine's, and machines have neighbours. Meanwhile the queue keeps the engine busy.
_SURE = 0.8
_TOGETHER_S = 0.05  # returns closer than this are one entry: refusing must stay cheap


@dataclass(slots=True)
class _Return:
    """Tiles told to come at a time (monotonic seconds)."""

    at: float
    tiles: int


class Returns:
    """The returns that were promised and are still to come.

    Everyone who is refused at one moment must not be sent away to one and the same moment: only the first
    would find room. Nor is it enough to tell them one after the other: Retry-After has whole seconds, so many
    come together, and must find room together. So the queue is foreseen as it will be when all who were told
    before have returned.
    """

    def __init__(self) -> None:
        self._promised: deque[_Return] = deque()

    def promise(self, tiles: int, inside: int, capacity: int, tiles_per_s: float) -> int:
        """Whole seconds until a request should find room; it is expected then.

        Args:
            tiles: of the request.
            inside: tiles being prepared or waiting now.
            capacity: how many may be.
            tiles_per_s: the measured throughput.
        """
        now, rate = time.monotonic(), tiles_per_s * _SURE
        while self._promised and self._promised[0].at <= now:
            self._promised.popleft()
        needed = min(tiles, capacity)  # a larger request is let in when nothing else is inside
        at, level, expected = now, float(inside), 0
        for told in self._promised:
            level = max(0.0, level - rate * (told.at - at)) + told.tiles
            at, expected = told.at, expected + told.tiles
        room_at = at + max(0.0, (level + needed - capacity) / rate)
        if expected + needed > _MAX_LINE * capacity or room_at > now + _MAX_RETRY_AFTER_S:
            return _whole(at - now)  # no promise, and nobody is to wait behind it
        wait_s = _whole(room_at - now)
        self._expect(now + wait_s, needed)
        return wait_s

    def _expect(self, at: float, tiles: int) -> None:
        if self._promised and at - self._promised[-1].at < _TOGETHER_S:
            self._promised[-1].tiles += tiles
        else:
            self._promised.append(_Return(at, tiles))


def _whole(seconds: float) -> int:
    return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(seconds)))
