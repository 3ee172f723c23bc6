"""Tiles of all requests share batches: greedy dynamic batching in front of one engine.

A batch starts as soon as one of the engine's workers is idle, with whatever waits; while it runs, the next
one gathers. So a lone request waits for nothing, and load makes batches grow by itself. A worker that is done
takes the next batch itself; the event loop, busy with requests, hears of it later.

A worker that fails, dies or hangs is restarted; the tiles of its batch are tried once more, one by one, and
then fail with the reason. As long as a worker is down, the service says that it is not ready.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import structlog
from numpy.typing import NDArray

from service.batching.admission import Admission, Gate, current
from service.batching.batch import Batch, share
from service.batching.engine_pool import EnginePool
from service.batching.engine_worker import EngineWorker
from service.batching.inference import infer
from service.batching.tile_queue import Embedding as Embedding
from service.batching.tile_queue import TileQueue, Waiting
from service.engine import Engine, EngineError
from service.errors import UnavailableError
from service.telemetry import metrics

log = structlog.get_logger()


class Batcher:
    """A bounded queue of tiles and the workers that empty it.

    Args:
        engine: called from `engine.concurrency` threads.
        max_batch_size: tiles.
        queue_size: tiles that may be inside; a request that does not fit is refused as a whole.
        max_queue_delay_s: how long a batch that is not full waits for more.
        timeout_s: what requests have to be answered; with a slow engine, fewer tiles are let in.
        engine_timeout_s: after which a batch that has not come back is given up.
        preparers: threads that prepare tiles.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch_size: int,
        queue_size: int,
        max_queue_delay_s: float = 0,
        timeout_s: float = 30,
        engine_timeout_s: float = 20,
        preparers: int = 1,
    ) -> None:
        self._engine = engine
        self.max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_s
        self._queue = TileQueue()
        self._gate = Gate(
            queue_size,
            timeout_s,
            waiting=lambda: len(self._queue),
            computing=lambda: self._queue.taken,
            preparers=preparers,
        )
        # A run that has all threads to itself is worth it while each tile gets several of them.
        self._max_alone = max(1, engine.concurrency // 4)
        self._pool = EnginePool(engine, engine_timeout_s, self._workers_changed)
        self._running: set[asyncio.Task[None]] = set()
        self._alone = False  # whether the batch that runs has all threads to itself
        self._wake = asyncio.Event()
        self._feeder: asyncio.Task[None] | None = None
        self.leaving = False  # told to stop; tiles may still be taken
        self._draining = False
        self._ended = False  # workers begin nothing more, though tiles may wait

    async def start(self) -> None:
        """Begins to feed the engine."""
        self._gate.tell()
        self._loop = asyncio.get_running_loop()
        self._feeder = asyncio.create_task(self._feed(), name="batcher")

    @property
    def depth(self) -> int:
        """Tiles being prepared or waiting."""
        return self._gate.inside

    @property
    def healthy(self) -> bool:
        """Whether tiles are taken and every worker works."""
        return self._fed and not self.leaving and self._pool.healthy

    @property
    def hopeless(self) -> bool:
        """Whether restarting the workers does not help; a new process might."""
        return self._pool.hopeless or not (self._feeder is None or self._fed or self._draining)

    @property
    def reason(self) -> str:
        """Why it is not healthy."""
        if self.leaving or not self._fed:
            return "the service is shutting down"
        return f"the engine is being restarted: {self._pool.reason}"

    def check(self, tiles: int = 1) -> None:
        """Whether a request could be let in now; asked before its body is read.

        Raises:
            OverloadedError, UnavailableError: as `admit`.
        """
        self._check_open()
        self._gate.check(tiles)

    def admit(self, tiles: int, *, ahead: bool = False) -> Admission:
        """Keeps room in the queue for a request until it submits; `with` gives back what it does not need.

        Args:
            tiles: that it has.
            ahead: whether they are windows that nobody prepares yet.

        Raises:
            OverloadedError: there is no room for all its tiles; says when to return.
            UnavailableError: the service is shutting down, or has no engine.
        """
        self._check_open()
        return self._gate.admit(tiles, ahead=ahead)

    async def submit(
        self,
        tiles: Sequence[tuple[NDArray[np.uint16], NDArray[np.float32]]],
        output: str,
        on_result: Callable[[int, Embedding | BaseException], None] | None = None,
    ) -> list[Embedding | BaseException]:
        """Embeds tiles; each succeeds or fails alone.

        Inside an admission they are never refused. A caller that is cancelled takes its waiting tiles out of
        the queue.

        Args:
            tiles: prepared pixels uint16 (7, 40, 40) and encodings float32 (4, 2).
            output: of the network, one of the poolings.
            on_result: told of each tile's result or error, by its place among the tiles, as it comes.

        Returns:
            A result or its error for each tile, in their order.

        Raises:
            OverloadedError, UnavailableError: as `admit`, outside of an admission; none was taken.
        """
        admission = current.get() or self.admit(len(tiles))
        loop = asyncio.get_running_loop()
        admission.use(len(tiles))
        alone = not (self._running or len(self._queue) or self._gate.preparing)
        waiting = [Waiting(dn, encoding, output, loop.create_future(), alone) for dn, encoding in tiles]
        if on_result is not None:
            for index, tile in enumerate(waiting):
                tile.future.add_done_callback(partial(_tell, on_result, index))
        self._queue.put(waiting)
        self._gate.tell()
        self._wake.set()
        try:
            return await asyncio.gather(*(w.future for w in waiting), return_exceptions=True)
        except asyncio.CancelledError:
            # gather has cancelled the futures; the feeder drops what it finds so.
            self._wake.set()
            raise

    def announce_shutdown(self) -> None:
        """Says that it is not ready; tiles are still taken until `drain`."""
        self.leaving = True

    async def drain(self) -> None:
        """Takes no more tiles, finishes those waiting, and ends the workers, also when it is cancelled."""
        self.leaving = self._draining = True
        self._wake.set()
        try:
            if self._feeder is not None:
                await self._feeder
        finally:
            self._ended = True
            await self._pool.stop()

    @property
    def _fed(self) -> bool:
        return self._feeder is not None and not self._feeder.done()

    def _check_open(self) -> None:
        if self._draining or not self._fed:
            raise UnavailableError("the service is shutting down and takes no more tiles")
        if self._pool.broken:
            pause_s = max(1, math.ceil(self._pool.pause_s))
            raise UnavailableError(self.reason, "engine-failed", retry_after_s=pause_s)

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
        if oldest is None or not self._pool.idle or self._alone or self._wait_for_more(oldest):
            return False
        # On a CPU, one run with all threads answers a lone tile soonest; several runs of one thread each get
        # more done. What came while something ran is not alone, and so clients in turn do not seem to be.
        alone = oldest.alone and not self._running and len(self._queue) <= self._max_alone
        batch = self._take(self._pool.idle, alone=alone)
        self._gate.tell()
        if batch is not None:
            self._alone = alone
            task = asyncio.create_task(self._run(self._pool.begin(batch), batch))
            self._running.add(task)
            task.add_done_callback(self._ran)
        return True

    def _follow(self) -> Batch | None:
        """What a worker goes on with that is done; called by its thread."""
        if self._max_queue_delay_s or self._ended or not len(self._queue):
            return None
        return self._take(self._pool.idle + 1)

    def _take(self, idle: int, *, alone: bool = False) -> Batch | None:
        """The next batch for one of so many idle workers, or all that waits. Any thread may call it."""
        count = len(self._queue) if alone else share(self._queue, self._engine, idle, self.max_batch_size)
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
        if not self._max_queue_delay_s or len(self._queue) >= self.max_batch_size or self._draining:
            return False
        remaining = oldest.since + self._max_queue_delay_s - time.perf_counter()
        if remaining <= 0:
            return False
        asyncio.get_running_loop().call_later(remaining, self._wake.set)
        return True

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._alone = False
        self._wake.set()

    async def _run(self, worker: EngineWorker, first: Batch) -> None:
        """Sees to a worker's batches until it finds no more."""
        batch: Batch | None = first
        del first  # what is done shall not wait in memory for the last
        while batch is not None:
            try:
                results = await self._pool.result(worker, batch)
            except EngineError as error:
                following = cast(Batch | None, batch.following)
                self._failed([*batch.tiles, *(following.tiles if following else ())], error)
                return
            self._queue.finish(len(batch.tiles))
            self._gate.measure(len(batch.tiles), batch.elapsed_s)
            batch.answer(results)
            self._gate.tell()
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
        if self._pool.broken:  # nobody shall wait for it
            for tile in self._queue.clear():
                if not tile.future.done():
                    tile.future.set_exception(UnavailableError(self.reason, "engine-failed"))
            self._gate.tell()
        self._wake.set()


def _tell(
    on_result: Callable[[int, Embedding | BaseException], None],
    index: int,
    future: asyncio.Future[Embedding],
) -> None:
    if not future.cancelled():
        on_result(index, future.exception() or future.result())
