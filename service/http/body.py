"""The bytes of a body as they stream in, bounded."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request

from service.errors import RequestError
from service.http.in_thread import in_thread
from service.http.spool import SpoolFile
from service.rasters.tiff_header import make_metadata_readable
from service.settings import Settings

CHUNK_BYTES = 1 << 18


async def bounded(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    """The body in pieces of some size.

    Raises:
        RequestError: it is larger than the limit.
        starlette.requests.ClientDisconnect: the client has gone.
    """
    received = 0
    pending: list[bytes] = []  # network chunks are small; each write to disk is a trip to a thread
    waiting = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > settings.max_upload_bytes:
                raise too_large(f"a body of more than {settings.max_upload_bytes:,} bytes", settings)
            pending.append(chunk)
            waiting += len(chunk)
            if waiting >= CHUNK_BYTES:
                yield b"".join(pending)
                pending, waiting = [], 0
    if waiting:
        yield b"".join(pending)


async def settled(file: SpoolFile) -> bytes | SpoolFile:
    """The bytes of a file in memory; a file on disk, ready to be read, itself."""
    if file.on_disk:
        await in_thread(_repair, file)
        return file
    data = file.getvalue()
    file.close()
    return data


def _repair(file: SpoolFile) -> None:
    with file.opened() as path:
        make_metadata_readable(path)


def too_large(what: str, settings: Settings) -> RequestError:
    """The error for a body over the limit."""
    return RequestError(
        "too-large",
        f"{what} came; at most {settings.max_upload_bytes:,} bytes are allowed "
        f"({settings.max_upload_mb:g} MB, LANDMOE_MAX_UPLOAD_MB)",
    )
