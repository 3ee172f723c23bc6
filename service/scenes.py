"""The scenes of a request: opened, admitted once, and computed window by window."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future

from model.bundle import Bundle
from model.outputs import Pooling
from service.batcher import Batcher
from service.batching.admission import Admission
from service.describe import PreparedTile
from service.errors import TILE_ERRORS, DeadlineError, RequestError, ServiceError
from service.files import Source
from service.formats.raster import Grid
from service.http import deadline
from service.http.spool import Spool
from service.outcomes import Outcome
from service.parameters import RequestOptions, TileParameters
from service.rasters.geotiff import Limits
from service.results import Embedded, Report, Results
from service.scene_grid import SceneGrid, Window
from service.settings import Settings

_CHUNKS = 2  # of windows under way: one is being computed while the next is read

Take = Callable[[list[Outcome]], Awaitable[None]]
_Chunk = tuple[list[Window], "asyncio.Task[list[Embedded | ServiceError]]"]


class Scenes:
    """The opened scenes of one request; `close` lets their files go.

    Args:
        grids: for each source its windows, or what is wrong with it.
        batcher: asked once for admission.
        results: of prepared windows.
        threads: that read.
        settings: how many windows may be under way, and how long a chunk may take.
    """

    def __init__(
        self,
        grids: Sequence[SceneGrid | Exception],
        batcher: Batcher,
        results: Results,
        threads: Executor,
        settings: Settings,
    ) -> None:
        self._grids = grids
        self._batcher = batcher
        self._results = results
        self._threads = threads
        self._settings = settings

    @property
    def windows(self) -> int:
        """Windows of all scenes, empty ones included."""
        return sum(len(grid) for grid in self._grids if isinstance(grid, SceneGrid))

    @property
    def shape(self) -> Grid | None:
        """The windows of the only scene as a raster."""
        if len(self._grids) == 1 and isinstance(grid := self._grids[0], SceneGrid):
            return Grid(grid.rows, grid.cols, grid.stride, grid.place)
        return None

    async def embed(self, pooling: Pooling, take: Take, *, bypass: bool, timeout_s: float | None) -> Report:
        """Computes all windows in their order.

        Args:
            pooling: the network's output that is wanted.
            take: given the outcomes as they come.
            bypass: neither read nor write the cache.
            timeout_s: what the client allows from one chunk of windows to the next.

        Raises:
            OverloadedError, UnavailableError: not let in; once it is, a scene is never refused.
            DeadlineError: no progress within the time allowed.
        """
        report = Report(cache="bypass" if bypass else "hit")
        size = max(1, self._settings.max_inflight_windows // _CHUNKS)
        limit_s = deadline.timeout_s(timeout_s, size, self._settings)
        # Room for the first windows, until they were read: what waits later counts in the queue.
        with self._batcher.admit(max(1, min(self.windows, size)), ahead=True) as admission:
            for index, grid in enumerate(self._grids):
                if isinstance(grid, Exception):
                    await take([Outcome(index, grid)])
                else:
                    await self._scene(grid, pooling, take, report, admission, size, limit_s, bypass=bypass)
        return report

    async def _scene(
        self,
        grid: SceneGrid,
        pooling: Pooling,
        take: Take,
        report: Report,
        admission: Admission,
        size: int,
        limit_s: float,
        *,
        bypass: bool,
    ) -> None:
        under_way: deque[_Chunk] = deque()
        try:
            while True:
                windows: list[Window] = []
                failure: Exception | None = None
                try:
                    windows = await self._read(grid, size, report, limit_s)
                except TILE_ERRORS as error:
                    failure = error
                admission.release()
                if windows:
                    good = [tile for _, tile in windows if isinstance(tile, PreparedTile)]
                    work = self._results.of(good, pooling, report, bypass=bypass)
                    under_way.append((windows, asyncio.create_task(work)))
                while under_way and (not windows or len(under_way) >= _CHUNKS):
                    await take(await _finished(grid.index, *under_way[0], limit_s))
                    under_way.popleft()
                if failure is not None:
                    await take([Outcome(grid.index, failure)])
                if not windows:
                    return
        finally:
            for _, task in under_way:
                task.cancel()

    async def _read(self, grid: SceneGrid, size: int, report: Report, limit_s: float) -> list[Window]:
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                return await loop.run_in_executor(self._threads, grid.take, size)
        except TimeoutError as error:
            raise DeadlineError(limit_s) from error
        finally:
            report.note("decode", time.perf_counter() - start)

    def close(self) -> None:
        """Lets the files go; a thread that still reads finishes first."""
        for grid in self._grids:
            if isinstance(grid, SceneGrid):
                with contextlib.suppress(RuntimeError):  # the threads are gone: so is the process, soon
                    self._threads.submit(grid.close)


async def open_scenes(
    sources: Sequence[Source],
    parameters: Sequence[TileParameters | RequestError],
    options: RequestOptions,
    bundle: Bundle,
    limits: Limits,
    spool: Spool,
    threads: Executor,
) -> list[SceneGrid | Exception]:
    """Opens files and looks at their headers; each fails alone.

    Where the request ends meanwhile, those that are open are closed: the garbage collector takes its time,
    and until then a spooled file takes its room on disk.
    """
    opening = [
        said
        if isinstance(said, RequestError)
        else threads.submit(SceneGrid, index, source, said, options, bundle, limits, spool)
        for index, (source, said) in enumerate(zip(sources, parameters, strict=True))
    ]
    try:
        return [found if isinstance(found, RequestError) else await _opened(found) for found in opening]
    except BaseException:
        for found in opening:
            if not isinstance(found, RequestError) and not found.cancel():
                found.add_done_callback(_close)
        raise


async def _opened(opening: Future[SceneGrid]) -> SceneGrid | Exception:
    try:
        return await asyncio.wrap_future(opening)
    except TILE_ERRORS as error:
        return error


def _close(opened: Future[SceneGrid]) -> None:
    if opened.exception() is None:
        opened.result().close()


async def _finished(
    index: int, windows: list[Window], task: asyncio.Task[list[Embedded | ServiceError]], limit_s: float
) -> list[Outcome]:
    try:
        async with asyncio.timeout(limit_s):
            results = iter(await task)
    except TimeoutError as error:
        raise DeadlineError(limit_s) from error
    return [
        Outcome(index, next(results) if isinstance(tile, PreparedTile) else tile, grid.row, grid.col)
        for grid, tile in windows
    ]
