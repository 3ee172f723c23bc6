"""The order of things: files → prepared tiles → cache → batcher → results. The one place that knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from model.outputs import Pooling
from service import sample
from service.batcher import Batcher
from service.cache import Cache
from service.caching.aliases import Aliases, rules
from service.caching.whole_answers import WholeAnswers
from service.describe import PreparedTile
from service.engine import Engine, arithmetic
from service.errors import DeadlineError, RequestError
from service.files import File, Source
from service.http import deadline
from service.http.spool import Spool
from service.parameters import RequestOptions, TileParameters
from service.prepare import prepare
from service.prepare_files import prepare_files
from service.rasters.geotiff import Limits
from service.results import Embedded, Report, Results
from service.scenes import Scenes, open_scenes
from service.settings import Settings


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
        self._batcher = batcher
        self._bundle = engine.bundle
        self._results = Results(engine, batcher, cache)
        self._limits = Limits(
            max_pixels=settings.max_pixels,
            max_bands=settings.max_bands,
            max_decoded_bytes=int(settings.max_decoded_mb * 1_000_000),
            max_strip_bytes=int(settings.max_strip_mb * 1_000_000),
        )
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        # A thread of their own: a scene is long, and tiles must not wait behind it.
        self._scene_readers = ThreadPoolExecutor(max(1, decode_threads // 2), thread_name_prefix="scene")
        self._aliases = Aliases(engine.bundle, self._limits, cache, self._decoders)
        computed_with = rules(engine.bundle, self._limits) + arithmetic(engine).encode()
        self.answers = WholeAnswers(computed_with, cache)

    async def warm_up(self) -> None:
        """Decodes a made-up tile, so that no request pays for GDAL's and PROJ's first use."""
        await asyncio.get_running_loop().run_in_executor(
            self._decoders,
            prepare,
            File(sample.make(), None),
            TileParameters(),
            RequestOptions(),
            self._bundle,
            Limits(),
        )

    async def embed(
        self,
        files: Sequence[Source],
        parameters: Sequence[TileParameters | RequestError],
        options: RequestOptions,
        pooling: Pooling,
        *,
        bypass: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[list[Embedded | Exception], Report]:
        """Embeds files; each succeeds or fails alone.

        Args:
            files: one GeoTIFF each.
            parameters: for each file, or what is wrong with them.
            options: of the whole request.
            pooling: the network's output that is wanted.
            bypass: neither read nor write the cache.
            timeout_s: what the client allows; None for the settings'.

        Returns:
            For each file its result or error, in their order; and how it went.

        Raises:
            OverloadedError, UnavailableError, DeadlineError: the whole request cannot be answered.
        """
        report = Report(cache="bypass" if bypass else "hit")
        timeout_s = deadline.timeout_s(timeout_s, len(files), self._settings)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(files, parameters, options, pooling, report, bypass=bypass), report
        except TimeoutError as error:
            raise DeadlineError(timeout_s) from error

    async def open_scenes(
        self,
        files: Sequence[Source],
        parameters: Sequence[TileParameters | RequestError],
        options: RequestOptions,
        spool: Spool,
    ) -> Scenes:
        """Opens files as scenes, for `fit=grid`; each fails alone. Blocks of theirs may go to the spool."""
        threads = self._scene_readers
        grids = await open_scenes(files, parameters, options, self._bundle, self._limits, spool, threads)
        return Scenes(grids, self._batcher, self._results, threads, self._settings)

    def close(self) -> None:
        """Lets the decoding threads go."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._scene_readers.shutdown(wait=False, cancel_futures=True)

    async def _embed(
        self,
        files: Sequence[Source],
        parameters: Sequence[TileParameters | RequestError],
        options: RequestOptions,
        pooling: Pooling,
        report: Report,
        *,
        bypass: bool,
    ) -> list[Embedded | Exception]:
        answers: dict[int, Embedded | Exception] = {}
        aliases: dict[int, bytes] = {}
        if not bypass:
            aliases, described = await self._aliases.find(files, parameters, options)
            known = await self._results.known(list(described.values()), pooling, report)
            answers = {i: answer for i, answer in zip(described, known, strict=True) if answer is not None}
        rest = [i for i in range(len(files)) if i not in answers]
        if rest:
            with self._batcher.admit(len(rest)):  # before they are decoded, which costs more than a refusal
                start = time.perf_counter()
                prepared = await prepare_files(
                    [files[i] for i in rest],
                    [parameters[i] for i in rest],
                    options,
                    self._bundle,
                    self._limits,
                    self._decoders,
                )
                report.note("decode", time.perf_counter() - start)
                good: dict[int, PreparedTile] = {}
                for i, tile in zip(rest, prepared, strict=True):
                    if isinstance(tile, PreparedTile):
                        good[i] = tile
                    else:
                        answers[i] = tile
                self._aliases.keep({aliases[i]: tile for i, tile in good.items() if i in aliases})
                results = await self._results.of(list(good.values()), pooling, report, bypass=bypass)
                answers |= zip(good, results, strict=True)
        return [answers[i] for i in range(len(files))]
