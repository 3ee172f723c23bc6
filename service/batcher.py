"""Tiles of all requests share batches: greedy dynamic batching in front of one engine.

A lone request waits for nothing, and load makes batches grow by itself (batching/feeder.py). As long as a
worker is down, the service says that it is not ready.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.batching.admission import Admission, Gate, current
from service.batching.feeder import Feeder
from service.batching.tile_queue import Embedding as Embedding
from service.batching.tile_queue import TileQueue, Waiting
from service.engine import Engine
from service.errors import UnavailableError

# Clients in turn find the engine idle now and then, but a run with all threads would be in the others' way.
_APART_S = 0.1


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
        self.max_batch_size = max_batch_size
        self._queue = TileQueue()
        self._gate = Gate(
            queue_size,
            timeout_s,
            waiting=lambda: len(self._queue),
            computing=lambda: self._queue.taken,
            preparers=preparers,
        )
        self._feeder = Feeder(
            engine,
            self._queue,
            max_batch_size=max_batch_size,
            max_queue_delay_s=max_queue_delay_s,
            engine_timeout_s=engine_timeout_s,
            computed=self._gate.measure,
            changed=self._gate.tell,
        )
        self._met = -math.inf  # when a tile last found another under way (the event loop's clock)
        self.leaving = False  # told to stop; tiles may still be taken
        self._draining = False

    async def start(self) -> None:
        """Begins to feed the engine."""
        self._gate.tell()
        self._feeder.start()

    @property
    def depth(self) -> int:
        """Tiles being prepared or waiting."""
        return self._gate.inside

    @property
    def healthy(self) -> bool:
        """Whether tiles are taken and every worker works."""
        return self._feeder.feeding and not self.leaving and self._feeder.pool.healthy

    @property
    def hopeless(self) -> bool:
        """Whether restarting the workers does not help; a new process might."""
        return self._feeder.hopeless

    @property
    def reason(self) -> str:
        """Why it is not healthy."""
        if self.leaving or not self._feeder.feeding:
            return "the service is shutting down"
        return self._feeder.reason

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
        alone = self._alone(loop.time())
        waiting = [Waiting(dn, encoding, output, loop.create_future(), alone) for dn, encoding in tiles]
        if on_result is not None:
            for index, tile in enumerate(waiting):
                tile.future.add_done_callback(partial(_tell, on_result, index))
        self._queue.put(waiting)
        self._gate.tell()
        self._feeder.wake()
        results: list[Embedding | BaseException] = []
        try:
            for tile in waiting:
                try:
                    results.append(await tile.future)
                except Exception as error:
                    results.append(error)
        except asyncio.CancelledError:
            for tile in waiting:  # the feeder drops what it finds cancelled
                if not tile.future.cancel() and not tile.future.cancelled():
                    tile.future.exception()  # nobody else will look at it
            self._feeder.wake()
            raise
        return results

    def announce_shutdown(self) -> None:
        """Says that it is not ready; tiles are still taken until `drain`."""
        self.leaving = True

    async def drain(self) -> None:
        """Takes no more tiles, finishes those waiting, and ends the workers, also when it is cancelled."""
        self.leaving = self._draining = True
        await self._feeder.drain()

    def _alone(self, now: float) -> bool:
        """Whether a tile that comes now has the engine to itself, and will probably keep it."""
        if self._feeder.busy or len(self._queue) or self._gate.preparing:
            self._met = now
        return now - self._met > _APART_S

    def _check_open(self) -> None:
        if self._draining or not self._feeder.feeding:
            raise UnavailableError("the service is shutting down and takes no more tiles")
        if self._feeder.pool.broken:
            pause_s = max(1, math.ceil(self._feeder.pool.pause_s))
            raise UnavailableError(self.reason, "engine-failed", retry_after_s=pause_s)


def _tell(
    on_result: Callable[[int, Embedding | BaseException], None],
    index: int,
    future: asyncio.Future[Embedding],
) -> None:
    if not future.cancelled():
        on_result(index, future.exception() or future.result())
