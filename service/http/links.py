"""Links among the files of a request are replaced by what they lead to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from service.errors import RequestError
from service.files import Delivery, File, LinkedFile
from service.http.body import settled
from service.http.fetch import Fetcher
from service.http.spool import Spool, SpoolFile
from service.http.upload import Upload
from service.parameters import TileParameters
from service.rasters.mtl import MAX_BYTES

Fetched = dict[str, bytes | SpoolFile | RequestError]
_AT_ONCE = 8  # of one request: no client's slow host takes the places of all others


def linked(upload: Upload) -> bool:
    """Whether there is anything to fetch."""
    return upload.mtl_link is not None or any(_links(source) for source in upload.files)


async def follow(
    upload: Upload, parameters: Sequence[TileParameters | RequestError], fetcher: Fetcher, spool: Spool
) -> list[TileParameters | RequestError]:
    """Fetches all that a request links to into its upload; a file that does not come fails alone.

    Args:
        upload: whose files are replaced.
        parameters: of each file; of one that has wrong ones nothing is fetched.
        fetcher: that asks.
        spool: for large files.

    Returns:
        The parameters; for a file that did not come, why.

    Raises:
        RequestError: the files are too large together.
        SpoolError: there is no room for them.
        OverloadedError, UnavailableError: there is no room for their tiles.
    """
    wanted: dict[str, None] = {}
    for source, given in zip(upload.files, parameters, strict=True):
        if not isinstance(given, RequestError):
            wanted |= dict.fromkeys(_links(source))
            if upload.mtl_link is not None:  # there is one delivery then
                wanted[upload.mtl_link] = None
    fetcher.admit(len(upload.files))
    fetched = await _fetch(list(wanted), fetcher, spool)
    told = list(parameters)
    try:
        for i, (source, given) in enumerate(zip(upload.files, parameters, strict=True)):
            if isinstance(given, RequestError):
                continue
            try:
                if isinstance(source, Delivery):
                    upload.files[i] = _delivery(source, upload.mtl_link, fetched)
                elif isinstance(source, LinkedFile):
                    upload.files[i] = File(_content(source.url, fetched), source.source)
            except RequestError as error:
                told[i] = _of_tile(error, given.id)
    finally:
        held = {id(file.data) for source in upload.files for file in _files(source)}
        for content in fetched.values():
            if isinstance(content, SpoolFile) and id(content) not in held:
                content.close()
    return told


def _files(source: File | Delivery) -> list[File]:
    if isinstance(source, File):
        return [source]
    return [*source.bands, *([] if source.qa_pixel is None else [source.qa_pixel])]


def _of_tile(error: RequestError, tile_id: str | None) -> RequestError:
    """The error as that of one tile; several may link to the same file."""
    own = RequestError(error.code, str(error))
    own.tile_id = tile_id
    return own


def _links(source: File | Delivery) -> list[str]:
    return [file.url for file in _files(source) if isinstance(file, LinkedFile)]


async def _fetch(urls: Sequence[str], fetcher: Fetcher, spool: Spool) -> Fetched:
    fetched: Fetched = {}
    budget, share, turns = fetcher.budget(), spool.share(), asyncio.Semaphore(_AT_ONCE)

    async def one(url: str) -> None:
        try:
            async with turns:
                fetched[url] = await fetcher.fetch(url, budget, share)
        except RequestError as error:
            if error.code == "too-large":  # of all together: which one it met is chance
                raise
            fetched[url] = error

    try:
        async with asyncio.TaskGroup() as group:
            for url in urls:
                group.create_task(one(url))
        # Not before all are there: what is settled in memory is no longer counted.
        for url, content in fetched.items():
            if isinstance(content, SpoolFile):
                fetched[url] = await settled(content)
    except BaseException as errors:
        for content in fetched.values():
            if isinstance(content, SpoolFile):
                content.close()
        if isinstance(errors, BaseExceptionGroup):
            raise errors.exceptions[0] from None
        raise
    return fetched


def _content(url: str, fetched: Fetched) -> bytes | SpoolFile:
    content = fetched[url]
    if isinstance(content, RequestError):
        raise content
    return content


def _delivery(source: Delivery, mtl_link: str | None, fetched: Fetched) -> Delivery:
    def there(file: File) -> File:
        return File(_content(file.url, fetched), file.source) if isinstance(file, LinkedFile) else file

    mtl = source.mtl
    if mtl_link is not None:
        content = _content(mtl_link, fetched)
        if isinstance(content, SpoolFile):
            content.seek(0)
            content = content.read(MAX_BYTES + 1)  # more than it may have
        mtl = content
    qa_pixel = None if source.qa_pixel is None else there(source.qa_pixel)
    return replace(source, bands=tuple(map(there, source.bands)), qa_pixel=qa_pixel, mtl=mtl)
