"""The queue of tiles: requests take turns, so that a large one does not make a small one wait behind it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Embedding:
    """One tile's result.

    `values` is a float32 array of its own, (dim,) or (105, dim); `batch_size` counts the tiles it was
    computed with; `queued_s` and `inference_s` are how long it waited and how long the batch took.
    """

    values: NDArray[np.float32]
    batch_size: int
    queued_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class Waiting:
    """A tile, the output asked of the network, and the future that somebody waits for.

    `alone` says that it found nothing else to be done when it came; `retried`, that it was in a batch that
    failed before.
    """

    dn: NDArray[np.uint16]
    encoding: NDArray[np.float32]
    output: str
    future: asyncio.Future[Embedding]
    alone: bool = False
    retried: bool = False
    since: float = field(default_factory=time.perf_counter)


class TileQueue:
    """Tiles by request. Each request gives one tile in its turn; within a request tiles keep their order.

    So with k requests waiting, a single tile waits for at most k - 1 others, however many tiles these have.
    Any thread may use it.
    """

    def __init__(self) -> None:
        self._turns: deque[deque[Waiting]] = deque()
        self._again: deque[Waiting] = deque()
        self._length = 0
        self._taken = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    @property
    def oldest(self) -> Waiting | None:
        """A tile of the request whose turn it is; None if nothing waits."""
        with self._lock:
            if self._again:
                return self._again[0]
            return self._turns[0][0] if self._turns else None

    @property
    def requests(self) -> int:
        """Requests that have tiles waiting."""
        return len(self._turns)

    @property
    def under_way(self) -> int:
        """Tiles that wait, and those that were taken and are not finished."""
        return self._length + self._taken

    @property
    def taken(self) -> int:
        """Tiles that were taken and are not finished."""
        return self._taken

    def put(self, tiles: Iterable[Waiting]) -> None:
        """Adds the tiles of one request, behind the requests that wait."""
        if request := deque(tiles):
            with self._lock:
                self._turns.append(request)
                self._length += len(request)

    def put_again(self, tiles: Iterable[Waiting]) -> None:
        """Puts tiles of a batch that failed before all others."""
        again = list(tiles)
        with self._lock:
            self._again.extendleft(reversed(again))
            self._length += len(again)

    def take(self, count: int) -> tuple[list[Waiting], int]:
        """The next batch, at most `count` tiles.

        A tile that was in a failed batch comes alone: what made the batch fail must not take others with it.

        Returns:
            The batch, and how many tiles were dropped because nobody waits for them any more.
        """
        batch: list[Waiting] = []
        with self._lock:
            before = self._length
            while self._again and not batch:
                self._add(self._again.popleft(), batch)
            if not batch:
                while self._turns and len(batch) < count:
                    request = self._turns.popleft()
                    self._add(request.popleft(), batch)
                    if request:
                        self._turns.append(request)
            self._taken += len(batch)
            return batch, before - self._length - len(batch)

    def finish(self, count: int) -> None:
        """Tells that so many of the tiles that were taken are computed, or failed."""
        with self._lock:
            self._taken -= count

    def clear(self) -> list[Waiting]:
        """Everything that waits; the queue is empty afterwards."""
        with self._lock:
            tiles = [*self._again, *(tile for request in self._turns for tile in request)]
            self._again.clear()
            self._turns.clear()
            self._length = 0
        return tiles

    def _add(self, tile: Waiting, batch: list[Waiting]) -> None:
        self._length -= 1
        if not tile.future.done():
            batch.append(tile)
