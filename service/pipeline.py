"""The order of things: files → prepared tiles → cache → batcher → results. The one place that knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service import sample
from service.batcher import Batcher
from service.cache import Cache
from service.engine import Engine
from service.errors import TILE_ERRORS, DeadlineError, RequestError
from service.geotiff import Limits
from service.parameters import Pooling, RequestOptions, TileParameters
from service.prepare import PreparedTile, prepare
from service.results import Embedded as Embedded
from service.results import Report as Report
from service.results import Results
from service.settings import Settings
from service.upload import File


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
        self._results = Results(engine, batcher, cache)
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
            Limits(),
        )

    async def embed(
        self,
        files: Sequence[File],
        parameters: Sequence[TileParameters | RequestError],
        options: RequestOptions,
        pooling: Pooling,
        *,
        bypass: bool = False,
    ) -> tuple[list[Embedded | Exception], Report]:
        """Embeds files; each succeeds or fails alone.

        Args:
            files: one GeoTIFF each.
            parameters: for each file, or what is wrong with them.
            options: of the whole request.
            pooling: the network's output that is wanted.
            bypass: neither read nor write the cache.

        Returns:
            For each file its result or error, in their order; and how it went.

        Raises:
            OverloadedError, UnavailableError, DeadlineError: the whole request cannot be answered.
        """
        report = Report(cache="bypass" if bypass else "hit")
        timeout_s = self._settings.request_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                tiles = await self._prepare(files, parameters, options, report)
                good = [tile for tile in tiles if isinstance(tile, PreparedTile)]
                results = iter(await self._results.of(good, pooling, report, bypass=bypass))
                return [next(results) if isinstance(t, PreparedTile) else t for t in tiles], report
        except TimeoutError as error:
            raise DeadlineError(timeout_s) from error

    def close(self) -> None:
        """Lets the decoding threads go."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _prepare(
        self,
        files: Sequence[File],
        parameters: Sequence[TileParameters | RequestError],
        options: RequestOptions,
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
        report.note("decode", time.perf_counter() - start)
        decoded = iter(outcomes)
        tiles = [given if isinstance(given, RequestError) else next(decoded) for given in parameters]
        for tile in tiles:
            if isinstance(tile, BaseException) and not isinstance(tile, TILE_ERRORS):
                raise tile  # not the file's fault
        return tiles  # type: ignore[return-value]  # every BaseException left is one of TILE_ERRORS
