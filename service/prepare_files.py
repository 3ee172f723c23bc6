"""Where the files of a request are prepared: small plain ones at once, all others in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from model.bundle import Bundle
from service.describe import PreparedTile
from service.errors import TILE_ERRORS, RequestError
from service.files import Source
from service.parameters import RequestOptions, TileParameters
from service.prepare import is_small, prepare, prepare_small
from service.rasters.geotiff import Limits

_AT_ONCE = 4  # files of a request that the event loop prepares itself, in about two milliseconds together
_TOGETHER = 8  # small files that go to a thread at a time

_Job = tuple[int, Source, TileParameters]


async def prepare_files(
    files: Sequence[Source],
    parameters: Sequence[TileParameters | RequestError],
    options: RequestOptions,
    bundle: Bundle,
    limits: Limits,
    threads: Executor,
) -> list[PreparedTile | Exception]:
    """Prepares files; each succeeds or fails alone.

    Args:
        files: of a request.
        parameters: for each file, or what is wrong with them.
        options: of the whole request; not a grid.
        bundle: see `prepare`.
        limits: see `prepare`.
        threads: that read what is not small and plain.

    Returns:
        For each file its tile or error, in their order.
    """
    outcomes: dict[int, PreparedTile | Exception] = {}
    waiting: list[_Job] = []
    for i, (file, given) in enumerate(zip(files, parameters, strict=True)):
        if isinstance(given, RequestError):
            outcomes[i] = given
        elif i < _AT_ONCE and (outcome := _at_once(file, given, options, bundle, limits)) is not None:
            outcomes[i] = outcome
        else:
            waiting.append((i, file, given))

    def work(jobs: Sequence[_Job]) -> dict[int, PreparedTile | Exception]:
        return {i: _outcome(file, given, options, bundle, limits) for i, file, given in jobs}

    if waiting:
        loop = asyncio.get_running_loop()
        batches = [[job] for job in waiting if not is_small(job[1])]
        small = [job for job in waiting if is_small(job[1])]
        batches += [small[i : i + _TOGETHER] for i in range(0, len(small), _TOGETHER)]
        for done in await asyncio.gather(*(loop.run_in_executor(threads, work, batch) for batch in batches)):
            outcomes |= done
    return [outcomes[i] for i in range(len(files))]


def _at_once(
    file: Source, given: TileParameters, options: RequestOptions, bundle: Bundle, limits: Limits
) -> PreparedTile | Exception | None:
    try:
        return prepare_small(file, given, options, bundle, limits)
    except TILE_ERRORS as error:
        return _alone(error)


def _outcome(
    file: Source, given: TileParameters, options: RequestOptions, bundle: Bundle, limits: Limits
) -> PreparedTile | Exception:
    try:
        return prepare(file, given, options, bundle, limits)
    except TILE_ERRORS as error:
        return _alone(error)


def _alone(error: Exception) -> Exception:
    """Without the frames it came through: they would hold the file until the garbage collector comes."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
