"""Prepared tiles → their results: from the cache, from a computation under way, or from the engine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.outputs import Pooling, shapes
from service.batcher import Batcher, Embedding
from service.cache import Cache, Namespace
from service.caching.cache_metrics import SHARED
from service.caching.single_flight import Land, SingleFlight
from service.describe import DescribedTile, PreparedTile
from service.engine import Engine, arithmetic
from service.errors import ServiceError
from service.telemetry import metrics, tracing

CacheState = Literal["hit", "miss", "bypass"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A tile with its embedding: float32 (dim,) or (105, dim) for tokens, not normalised, read-only."""

    tile: DescribedTile
    values: NDArray[np.float32]
    cached: bool


@dataclass(slots=True)
class Report:
    """How a request went: seconds of each stage, the largest batch its tiles were in, what the cache gave.

    `cache` is the least of all tiles: one miss makes a hit a miss. `warned` are the counts of their
    warnings and `model` what computes, as the headers have them.
    """

    stages: dict[str, float] = field(default_factory=dict)
    batch_size: int = 0
    cache: CacheState = "hit"
    warned: str = ""
    model: str = ""
    missed: set[bytes] = field(default_factory=set)  # keys that were looked up and are not asked for again

    def note(self, stage: str, seconds: float) -> None:
        """Adds to the time of a stage."""
        self.stages[stage] = self.stages.get(stage, 0) + seconds
        metrics.STAGES[stage].observe(seconds)
        tracing.stage(stage, seconds)


class Results:
    """Gives every prepared tile its result; the one place that asks the cache and the batcher.

    Args:
        engine: whose results are kept and given.
        batcher: in front of the engine.
        cache: of results.
    """

    def __init__(self, engine: Engine, batcher: Batcher, cache: Cache) -> None:
        config = engine.bundle.config
        self._shapes = shapes(config)
        self._batcher = batcher
        self._cache = cache
        self._flights: SingleFlight[PreparedTile, Embedding | ServiceError] = SingleFlight()
        self._namespace = Namespace(
            engine.bundle.encoder_digest(engine.precision),
            arithmetic(engine),
            engine.bundle.preprocessing.version,
        )

    async def of(
        self, tiles: Sequence[PreparedTile], pooling: Pooling, report: Report, *, bypass: bool = False
    ) -> list[Embedded | ServiceError]:
        """Embeds tiles; each succeeds or fails alone.

        Args:
            tiles: as `prepare` makes them.
            pooling: the output of the network that is wanted.
            report: of the request; stages, batch size and what the cache gave are noted there.
            bypass: neither read nor write the cache.

        Returns:
            For each tile its result or error, in their order.

        Raises:
            OverloadedError, UnavailableError: the tiles cannot be taken; none was.
        """
        if not tiles:
            return []
        if bypass and len(tiles) == 1:
            keys = [b""]  # nothing is looked up, and there is no other tile that it could equal
        else:
            keys = [self._namespace.key(tile.hash, pooling) for tile in tiles]
        found: list[bytes | None] = [None] * len(tiles)
        if not bypass:
            unknown = [key for key in keys if key not in report.missed]
            if unknown:
                values = dict(zip(unknown, await self._look_up(unknown, pooling, report), strict=True))
                found = [values.get(key) for key in keys]
            if None in found:
                report.cache = "miss"
        # Equal tiles of one request are computed once, too.
        wanted = {key: tile for key, tile, value in zip(keys, tiles, found, strict=True) if value is None}
        computed: Mapping[bytes, Embedding | ServiceError] = {}
        if wanted and bypass:
            computed = await self._compute(wanted, pooling)
        elif wanted:
            computed, shared = await self._flights.run(wanted, partial(self._compute_and_keep, pooling))
            SHARED.inc(shared)
        for result in computed.values():
            if isinstance(result, Embedding):
                report.batch_size = max(report.batch_size, result.batch_size)
                report.stages["queue"] = max(report.stages.get("queue", 0), result.queued_s)
                report.stages["inference"] = max(report.stages.get("inference", 0), result.inference_s)
        if computed:
            tracing.stage("queue", report.stages.get("queue", 0), report.stages.get("inference", 0))
            tracing.stage("inference", report.stages.get("inference", 0))
        return [
            self._answer(tile, value, pooling) if value is not None else _computed(tile, computed[key])
            for tile, key, value in zip(tiles, keys, found, strict=True)
        ]

    async def known(
        self, tiles: Sequence[DescribedTile], pooling: Pooling, report: Report
    ) -> list[Embedded | None]:
        """Results that the cache has of tiles without pixels, None for each that it has not."""
        if not tiles:
            return []
        keys = [self._namespace.key(tile.hash, pooling) for tile in tiles]
        found = await self._look_up(keys, pooling, report)
        report.missed.update(key for key, value in zip(keys, found, strict=True) if value is None)
        return [
            None if value is None else self._answer(tile, value, pooling)
            for tile, value in zip(tiles, found, strict=True)
        ]

    async def _look_up(self, keys: Sequence[bytes], pooling: Pooling, report: Report) -> list[bytes | None]:
        start = time.perf_counter()
        try:
            return await self._cache.get(keys, self._size(pooling))
        finally:
            report.note("cache", time.perf_counter() - start)

    def _size(self, pooling: Pooling) -> int:
        """Bytes of a result: raw float32."""
        return math.prod(self._shapes[pooling]) * np.dtype("<f4").itemsize

    async def _compute_and_keep(
        self,
        pooling: Pooling,
        wanted: Mapping[bytes, PreparedTile],
        land: Land[Embedding | ServiceError],
    ) -> dict[bytes, Embedding | ServiceError]:
        """Kept before the flight ends, so that whoever comes later finds one or the other.

        Who waits for one tile of many, as of a scene, has it as soon as it is there.
        """
        computed = await self._compute(wanted, pooling, land if len(wanted) > 1 else None)
        self._cache.put({k: v.values.tobytes() for k, v in computed.items() if isinstance(v, Embedding)})
        return computed

    async def _compute(
        self,
        wanted: Mapping[bytes, PreparedTile],
        pooling: Pooling,
        land: Land[Embedding | ServiceError] | None = None,
    ) -> dict[bytes, Embedding | ServiceError]:
        computed: dict[bytes, Embedding | ServiceError] = {}
        keys = list(wanted)

        def landed(index: int, result: Embedding | BaseException) -> None:
            if land is not None and isinstance(result, Embedding | ServiceError):
                land(keys[index], result)

        results = await self._batcher.submit(
            [(t.dn, t.encoding) for t in wanted.values()], pooling, None if land is None else landed
        )
        for key, result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, ServiceError):
                raise result
            computed[key] = result
        return computed

    def _answer(self, tile: DescribedTile, found: bytes, pooling: Pooling) -> Embedded:
        return Embedded(tile, np.frombuffer(found, "<f4").reshape(self._shapes[pooling]), cached=True)


def _computed(tile: PreparedTile, result: Embedding | ServiceError) -> Embedded | ServiceError:
    return result if isinstance(result, ServiceError) else Embedded(tile, result.values, cached=False)
