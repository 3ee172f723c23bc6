"""Workers are fed: batches of what waits go to those that are idle, and each is seen to until it is done.

A batch starts as soon as one of the engine's workers is idle, with whatever waits; while it runs, the next
one gathers. A worker that is done takes the next batch itself; the event loop, busy with requests, hears
of it later. A worker that fails, dies or hangs is restarted; the tiles of its batch are tried once more, one
by one, and then fail with the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from service.batching.batch import Batch, share
from service.batching.engine_pool import EnginePool
from service.batching.engine_worker import EngineWorker
from service.batching.inference import infer
from service.batching.tile_queue import TileQueue, Waiting
from service.engine import Engine, EngineError
from service.errors import UnavailableError
from service.telemetry import metrics


class Feeder:
    """Empties a queue of tiles with an engine's workers.

    Args:
        engine: called from `engine.concurrency` threads.
        queue: that others fill; they call `wake` then.
        max_batch_size: tiles.
        max_queue_delay_s: how long a batch that is not full waits for more.
        engine_timeout_s: after which a batch that has not come back is given up.
        computed: told of a batch that is done: its tiles, and the seconds it took.
        changed: told that more or fewer tiles wait.
    """

    def __init__(
        self,
        engine: Engine,
        queue: TileQueue,
        *,
        max_batch_size: int,
        max_queue_delay_s: float,
        engine_timeout_s: float,
        computed: Callable[[int, float], None],
        changed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_s
        self._computed = computed
        self._changed = changed
        self.pool = EnginePool(engine, engine_timeout_s, self._workers_changed)
        # A run that has all threads to itself is worth it while each tile gets several of them.
        self._max_alone = max(1, engine.concurrency // 4)
        self._running: set[asyncio.Task[None]] = set()
        self._alone = False  # whether the batch that runs has all threads to itself
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._ended = False  # workers begin nothing more, though tiles may wait

    def start(self) -> None:
        """Begins to feed."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._feed(), name="feeder")

    @property
    def feeding(self) -> bool:
        """Whether it has begun and not ended."""
        return self._task is not None and not self._task.done()

    @property
    def hopeless(self) -> bool:
        """Whether restarting the workers does not help; a new process might."""
        return self.pool.hopeless or not (self._task is None or self.feeding or self._draining)

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._running)

    @property
    def reason(self) -> str:
        """Why not every worker works."""
        return f"the engine is being restarted: {self.pool.reason}"

    def wake(self) -> None:
        """There is something new: tiles, or callers that have gone."""
        self._wake.set()

    async def drain(self) -> None:
        """Finishes what waits, and ends the workers, also when it is cancelled."""
        self._draining = True
        self._wake.set()
        try:
            if self._task is not None:
                await self._task
        finally:
            self._ended = True
            await self.pool.stop()

    async def _feed(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._start_batch():
                pass
            if self._draining and not len(self._queue) and not self._running:
                return

    def _start_batch(self) -> bool:
        """Gives the next batch to an idle worker; False if there is nothing to be done now."""
        oldest = self._queue.oldest
        if oldest is None or not self.pool.idle or self._alone or self._wait_for_more(oldest):
            return False
        # On a CPU, one run with all threads answers a lone tile soonest; several runs of one thread each get
        # more done. What came while something ran is not alone, and so clients in turn do not seem to be.
        alone = oldest.alone and not self._running and len(self._queue) <= self._max_alone
        batch = self._take(self.pool.idle, alone=alone)
        self._changed()
        if batch is not None:
            self._alone = alone
            task = asyncio.create_task(self._run(self.pool.begin(batch), batch))
            self._running.add(task)
            task.add_done_callback(self._ran)
        return True

    def _follow(self) -> Batch | None:
        """What a worker goes on with that is done; called by its thread."""
        if self._max_queue_delay_s or self._ended or not len(self._queue):
            return None
        return self._take(self.pool.idle + 1)

    def _take(self, idle: int, *, alone: bool = False) -> Batch | None:
        """The next batch for one of so many idle workers, or all that waits. Any thread may call it."""
        count = len(self._queue) if alone else share(self._queue, self._engine, idle, self._max_batch_size)
        tiles, dropped = self._queue.take(count)
        metrics.DROPPED.inc(dropped)
        if not tiles:
            return None
        return Batch(
            function=partial(infer, self._engine, tiles, alone),
            loop=self._loop,
            future=self._loop.create_future(),
            follow=None if alone else self._follow,
            tiles=tiles,
            alone=alone,
        )

    def _wait_for_more(self, oldest: Waiting) -> bool:
        if not self._max_queue_delay_s or len(self._queue) >= self._max_batch_size or self._draining:
            return False
        remaining = oldest.since + self._max_queue_delay_s - time.perf_counter()
        if remaining <= 0:
            return False
        asyncio.get_running_loop().call_later(remaining, self._wake.set)
        return True

    def _ran(self, task: asyncio.Task[None]) -> None:
        if task in self._running:  # told already, and another may run alone since
            self._running.discard(task)
            self._alone = False
            self._wake.set()

    async def _run(self, worker: EngineWorker, first: Batch) -> None:
        """Sees to a worker's batches until it finds no more."""
        batch: Batch | None = first
        del first  # what is done shall not wait in memory for the last
        while batch is not None:
            try:
                results = await self.pool.result(worker, batch)
            except EngineError as error:
                following = cast(Batch | None, batch.following)
                self._failed([*batch.tiles, *(following.tiles if following else ())], error)
                return
            self._queue.finish(len(batch.tiles))
            self._computed(len(batch.tiles), batch.elapsed_s)
            if batch.following is None and (task := asyncio.current_task()) is not None:
                self._ran(task)  # what its callers send next finds the engine idle
            batch.answer(results)
            self._changed()
            batch = cast(Batch | None, batch.following)

    def _failed(self, batch: list[Waiting], error: EngineError) -> None:
        """A batch did not come back: its tiles are tried again, or fail."""
        self._queue.finish(len(batch))
        for tile in batch:
            if tile.retried and not tile.future.done():
                tile.future.set_exception(UnavailableError(str(error), "engine-failed"))
        again = [tile for tile in batch if not tile.retried]
        for tile in again:
            tile.retried = True
        self._queue.put_again(again)
        self._workers_changed()

    def _workers_changed(self) -> None:
        if self.pool.broken:  # nobody shall wait for it
            for tile in self._queue.clear():
                if not tile.future.done():
                    tile.future.set_exception(UnavailableError(self.reason, "engine-failed"))
            self._changed()
        self._wake.set()
