"""Tiles that are computed together: how many they are, and what becomes of their results."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.batching.engine_worker import Job
from service.batching.tile_queue import Embedding, TileQueue, Waiting
from service.engine import Engine, EngineError
from service.errors import UnavailableError
from service.telemetry import metrics


@dataclass(slots=True, eq=False, kw_only=True)
class Batch(Job[list[NDArray[np.float32] | EngineError]]):
    """Tiles for one worker; alone, with all threads of the engine, or beside other batches."""

    tiles: list[Waiting]
    alone: bool

    @property
    def elapsed_s(self) -> float:
        """How long it was computed."""
        return self.ended - self.began

    def answer(self, results: list[NDArray[np.float32] | EngineError]) -> None:
        """Gives every tile its result or error, unless nobody waits for it any more."""
        metrics.BATCH_SIZE.observe(len(self.tiles))
        metrics.STAGES["inference"].observe(self.elapsed_s)
        for tile, values in zip(self.tiles, results, strict=True):
            queued = self.began - tile.since
            metrics.STAGES["queue"].observe(queued)
            if tile.future.done():
                continue
            if isinstance(values, EngineError):
                tile.future.set_exception(UnavailableError(str(values), "engine-failed"))
            else:
                tile.future.set_result(Embedding(values, len(self.tiles), queued, self.elapsed_s))


def share(queue: TileQueue, engine: Engine, idle: int, max_batch_size: int) -> int:
    """Tiles for one of so many idle workers: all workers alike, but no less than is computed at once.

    Where few tiles of several requests are under way, half of them are left waiting: a worker that is done
    finds these, while those who got an answer send more.
    """
    waiting, workers = len(queue), engine.concurrency
    least = min(engine.chunk_size, math.ceil(waiting / idle))
    if queue.requests > 1:
        least = min(least, math.ceil(queue.under_way / (2 * workers)))
    return min(max_batch_size, max(least, math.ceil(waiting / workers)))
