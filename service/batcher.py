"""Tiles of all requests share batches: greedy dynamic batching in front of one engine.

A batch starts as soon as the engine is idle, with whatever waits (at most `max_batch_size` tiles); while it
runs, the next one gathers. So a lone request waits for nothing, and load makes batches grow by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from service import metrics
from service.engine import Engine
from service.errors import OverloadedError, UnavailableError

log = structlog.get_logger()

# Weight of the latest batch in the measured throughput: follows a change of load within about ten batches.
_SMOOTHING = 0.2


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
class _Waiting:
    dn: NDArray[np.uint16]
    encoding: NDArray[np.float32]
    output: str
    future: asyncio.Future[Embedding]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """A bounded queue of tiles and the task that feeds the engine from it.

    Args:
        engine: called from a thread of its own, one batch at a time.
        max_batch_size: tiles.
        queue_size: tiles that may wait; a submission that does not fit is refused as a whole.
        max_queue_delay_s: how long a batch that is not full waits for more.
    """

    def __init__(
        self, engine: Engine, *, max_batch_size: int, queue_size: int, max_queue_delay_s: float = 0
    ) -> None:
        self._engine = engine
        self._max_batch_size = max_batch_size
        self._queue_size = queue_size
        self._max_queue_delay_s = max_queue_delay_s
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._tiles_per_s = 0.0
        self.last_failure: str | None = None  # of the engine, until a batch succeeds again

    async def start(self) -> None:
        """Begins to feed the engine."""
        self._task = asyncio.create_task(self._feed(), name="batcher")

    @property
    def depth(self) -> int:
        """Tiles waiting."""
        return len(self._queue)

    @property
    def healthy(self) -> bool:
        """Whether tiles are taken and the engine gave results last time."""
        alive = self._task is not None and not self._task.done()
        return alive and not self._draining and self.last_failure is None

    async def submit(
        self, tiles: Sequence[tuple[NDArray[np.uint16], NDArray[np.float32]]], output: str
    ) -> list[Embedding | BaseException]:
        """Embeds tiles; each succeeds or fails alone.

        A caller that is cancelled takes its waiting tiles out of the queue.

        Args:
            tiles: prepared pixels uint16 (7, 40, 40) and encodings float32 (4, 2).
            output: of the network, one of the poolings.

        Returns:
            A result or its error for each tile, in their order.

        Raises:
            OverloadedError: the tiles do not fit into the queue; none was taken.
            UnavailableError: the service is shutting down.
        """
        self._admit(len(tiles))
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(dn, encoding, output, loop.create_future()) for dn, encoding in tiles]
        self._queue.extend(waiting)
        self._signal()
        try:
            return await asyncio.gather(*(w.future for w in waiting), return_exceptions=True)
        except asyncio.CancelledError:
            # gather has cancelled the futures; the feeder drops what it finds so.
            self._arrived.set()
            raise

    def _admit(self, count: int) -> None:
        if self._draining or self._task is None or self._task.done():
            raise UnavailableError("the service is shutting down and takes no more tiles")
        free = self._queue_size - len(self._queue)
        # An idle service takes a request of any allowed size: there is nothing to wait for.
        if count > free and self._queue:
            raise OverloadedError(
                f"{count} tiles came, {len(self._queue)} are waiting and at most {self._queue_size} may wait",
                self.retry_after_s(count),
            )

    def retry_after_s(self, count: int) -> int:
        """Whole seconds until `count` more tiles should fit, from the measured throughput; at least one."""
        excess = len(self._queue) + count - self._queue_size
        rate = self._tiles_per_s or self._max_batch_size
        return max(1, min(60, math.ceil(excess / rate)))

    async def drain(self) -> None:
        """Takes no more tiles, finishes those waiting, and lets the engine's thread go."""
        self._draining = True
        self._signal()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=True)

    def _signal(self) -> None:
        metrics.QUEUE_DEPTH.set(len(self._queue))
        self._arrived.set()
        if len(self._queue) >= self._max_batch_size or self._draining:
            self._full.set()

    async def _feed(self) -> None:
        while True:
            if not self._queue:
                if self._draining:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if self._max_queue_delay_s and len(self._queue) < self._max_batch_size and not self._draining:
                await self._wait_for_more()
            batch = self._take()
            if batch:
                await self._run(batch)

    async def _wait_for_more(self) -> None:
        oldest = self._queue[0].since
        self._full.clear()
        try:
            async with asyncio.timeout(max(0.0, oldest + self._max_queue_delay_s - time.perf_counter())):
                await self._full.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Waiting]:
        """The next batch. Tiles that nobody waits for are dropped before they cost the engine's time."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_batch_size:
            tile = self._queue.popleft()
            if tile.future.done():
                metrics.DROPPED.inc()
            else:
                batch.append(tile)
        metrics.QUEUE_DEPTH.set(len(self._queue))
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._infer, batch)
        except Exception as error:
            metrics.ENGINE_FAILURES.inc()
            self.last_failure = str(error)
            log.exception("engine failed", tiles=len(batch))
            if len(batch) > 1:  # one bad tile must not take its batch mates with it
                for tile in batch:
                    await self._run([tile])
            elif not batch[0].future.done():
                batch[0].future.set_exception(UnavailableError(str(error), "engine-failed"))
            return
        self.last_failure = None
        elapsed = time.perf_counter() - started
        rate = len(batch) / max(elapsed, 1e-6)
        self._tiles_per_s += (rate - self._tiles_per_s) * (_SMOOTHING if self._tiles_per_s else 1)
        metrics.BATCH_SIZE.observe(len(batch))
        metrics.STAGES["inference"].observe(elapsed)
        for tile, values in zip(batch, results, strict=True):
            queued = started - tile.since
            metrics.STAGES["queue"].observe(queued)
            if not tile.future.done():
                tile.future.set_result(Embedding(values, len(batch), queued, elapsed))

    def _infer(self, batch: list[_Waiting]) -> list[NDArray[np.float32]]:
        """In the engine's thread: stacks, runs, and gives every tile an array of its own."""
        outputs = tuple(sorted({tile.output for tile in batch}))
        if len(batch) == 1:
            dn, metadata = batch[0].dn[None], batch[0].encoding[None]
        else:
            dn = np.stack([tile.dn for tile in batch])
            metadata = np.stack([tile.encoding for tile in batch])
        results = self._engine.run(dn, metadata, outputs)
        return [results[tile.output][i].copy() for i, tile in enumerate(batch)]
