"""The order of things: files → prepared tiles → cache → batcher → results. The one place that knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service import metrics, sample
from service.batcher import Batcher
from service.cache import Cache, Namespace
from service.engine import Engine
from service.errors import TILE_ERRORS, DeadlineError, RequestError, ServiceError
from service.geotiff import Limits
from service.parameters import EmbedOptions, Pooling, TileParameters
from service.prepare import PreparedTile, prepare
from service.settings import Settings
from service.upload import File

CacheState = Literal["hit", "miss", "bypass"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A tile with its embedding: float32 (dim,) or (105, dim) for tokens, not normalised, read-only."""

    tile: PreparedTile
    values: NDArray[np.float32]
    cached: bool


@dataclass(slots=True)
class Report:
    """How a request went: seconds of each stage, the largest batch its tiles were in, what the cache gave."""

    stages: dict[str, float] = field(default_factory=dict)
    batch_size: int = 0
    cache: CacheState = "miss"


class Pipeline:
    """Everything between a parsed request and its results.

    Args:
        settings: limits and sizes.
        engine: whose results are kept and given.
        batcher: in front of the engine.
        cache: of results.
        decode_threads: that read rasters.
    """

    def __init__(
        self, settings: Settings, engine: Engine, batcher: Batcher, cache: Cache, decode_threads: int
    ) -> None:
        self._settings = settings
        self._bundle = engine.bundle
        self._batcher = batcher
        self._cache = cache
        self._namespace = Namespace(
            engine.bundle.encoder_digest(engine.precision),
            engine.provider,
            engine.precision,
            engine.bundle.preprocessing.version,
        )
        self._limits = Limits(
            max_pixels=settings.max_pixels,
            max_bands=settings.max_bands,
            max_decoded_bytes=int(settings.max_decoded_mb * 1_000_000),
        )
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    async def warm_up(self) -> None:
        """Decodes a made-up tile, so that no request pays for GDAL's and PROJ's first use."""
        await asyncio.get_running_loop().run_in_executor(
            self._decoders,
            prepare,
            File(sample.make(), None),
            TileParameters(),
            None,
            self._bundle,
            self._limits,
        )

    async def embed(
        self,
        files: Sequence[File],
        parameters: Sequence[TileParameters | RequestError],
        options: EmbedOptions,
        *,
        bypass: bool = False,
    ) -> tuple[list[Embedded | Exception], Report]:
        """Embeds files; each succeeds or fails alone.

        Args:
            files: one GeoTIFF each.
            parameters: for each file, or what is wrong with them.
            options: of the whole request.
            bypass: neither read nor write the cache.

        Returns:
            For each file its result or error, in their order; and how it went.

        Raises:
            OverloadedError, UnavailableError, DeadlineError: the whole request cannot be answered.
        """
        report = Report(cache="bypass" if bypass else "miss")
        timeout_s = self._settings.request_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                tiles = await self._prepare(files, parameters, options, report)
                return await self._results(tiles, options.pooling, bypass, report), report
        except TimeoutError as error:
            raise DeadlineError(timeout_s) from error

    def close(self) -> None:
        """Lets the decoding threads go."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _prepare(
        self,
        files: Sequence[File],
        parameters: Sequence[TileParameters | RequestError],
        options: EmbedOptions,
        report: Report,
    ) -> list[PreparedTile | Exception]:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        outcomes = await asyncio.gather(
            *(
                loop.run_in_executor(
                    self._decoders, prepare, file, given, options.fit, self._bundle, self._limits
                )
                for file, given in zip(files, parameters, strict=True)
                if not isinstance(given, RequestError)
            ),
            return_exceptions=True,
        )
        _note(report, "decode", time.perf_counter() - start)
        decoded = iter(outcomes)
        tiles = [given if isinstance(given, RequestError) else next(decoded) for given in parameters]
        for tile in tiles:
            if isinstance(tile, BaseException) and not isinstance(tile, TILE_ERRORS):
                raise tile  # not the file's fault
        return tiles  # type: ignore[return-value]  # every BaseException left is one of TILE_ERRORS

    async def _results(
        self, tiles: Sequence[PreparedTile | Exception], pooling: Pooling, bypass: bool, report: Report
    ) -> list[Embedded | Exception]:
        good = [tile for tile in tiles if isinstance(tile, PreparedTile)]
        keys = [self._namespace.key(tile.hash, pooling) for tile in good]
        found: list[bytes | None] = [None] * len(good)
        if not bypass and good:
            start = time.perf_counter()
            found = await self._cache.get(keys)
            _note(report, "cache", time.perf_counter() - start)
            if None not in found:
                report.cache = "hit"
        # Equal tiles of one request are computed once.
        wanted = {key: tile for key, tile, value in zip(keys, good, found, strict=True) if value is None}
        computed: dict[bytes, NDArray[np.float32] | Exception] = {}
        if wanted:
            results = await self._batcher.submit([(t.dn, t.encoding) for t in wanted.values()], pooling)
            for key, result in zip(wanted, results, strict=True):
                if isinstance(result, ServiceError):
                    computed[key] = result
                elif isinstance(result, BaseException):
                    raise result
                else:
                    computed[key] = result.values
                    report.batch_size = max(report.batch_size, result.batch_size)
                    report.stages["queue"] = max(report.stages.get("queue", 0), result.queued_s)
                    report.stages["inference"] = max(report.stages.get("inference", 0), result.inference_s)
            if not bypass:
                self._cache.put({k: v.tobytes() for k, v in computed.items() if not isinstance(v, Exception)})
        answers = iter(zip(good, keys, found, strict=True))
        return [
            self._answer(*next(answers), computed, pooling) if isinstance(tile, PreparedTile) else tile
            for tile in tiles
        ]

    def _answer(
        self,
        tile: PreparedTile,
        key: bytes,
        found: bytes | None,
        computed: dict[bytes, NDArray[np.float32] | Exception],
        pooling: Pooling,
    ) -> Embedded | Exception:
        if found is not None:
            values = np.frombuffer(found, "<f4")
            if pooling == "tokens":
                values = values.reshape(self._bundle.config.num_tokens, -1)
            return Embedded(tile, values, cached=True)
        result = computed[key]
        return result if isinstance(result, Exception) else Embedded(tile, result, cached=False)


def _note(report: Report, stage: str, seconds: float) -> None:
    report.stages[stage] = seconds
    metrics.STAGES[stage].observe(seconds)
