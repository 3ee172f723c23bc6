"""The body of a request: files and form fields, bounded while they stream in."""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from service.errors import RequestError
from service.files import EXPECTED, TILE_PART, File, LinkedFile, Source
from service.http.body import CHUNK_BYTES, bounded, settled, too_large
from service.http.form import check_charset, receive_form
from service.http.headers import header
from service.http.in_thread import in_thread
from service.http.spool import Share, Spool
from service.settings import Settings

RAW_TYPES = ("image/tiff", "image/tiff-fx", "image/geotiff", "image/x-tiff", "image/tif")
# What clients send that do not think about it; the bytes then say whether it is a TIFF.
UNSPECIFIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request brought: rasters in their order, and parameters by name as texts in their order.

    Files that it only links to are `LinkedFile`s, and `mtl_link` is the URL of a delivery's MTL, until they
    are fetched (links.py).
    """

    files: list[Source]
    values: dict[str, list[str]]
    mtl_link: str | None = None

    def close(self) -> None:
        """Frees what was spooled."""
        for file in self.files:
            file.close()


async def receive(request: Request, settings: Settings, spool: Spool) -> Upload:
    """Reads the body of a request, raw or multipart, and the query. A large body goes to the spool.

    Raises:
        SpoolError: there is no room for it.
        RequestError: another media type or a content coding, a body over the limit, a damaged multipart body,
            no or an empty tile, a parameter both in the query and in the form.
        starlette.requests.ClientDisconnect: the client has gone.
    """
    media_type = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    multipart = media_type == "multipart/form-data"
    if not multipart and media_type not in RAW_TYPES and media_type not in UNSPECIFIC_TYPES:
        raise RequestError("unsupported-media-type", f"Content-Type is {media_type[:100]!r}; {EXPECTED}")
    if (coding := (header(request, b"content-encoding") or "identity").lower()) != "identity":
        raise RequestError(
            "unsupported-media-type",
            f"Content-Encoding is {coding[:100]!r}; expected none: GeoTIFFs are packed inside",
            {"Accept-Encoding": "identity"},  # RFC 9110, 15.5.16
        )
    if multipart:
        check_charset(request)
    _check_announced(request, settings, spool)
    share = spool.share()
    values: dict[str, list[str]] = defaultdict(list)
    if request.scope["query_string"]:
        for name, text in request.query_params.multi_items():
            values[name].append(text)
    if multipart:
        files, mtl_link = await receive_form(request, settings, values, share)
    else:
        files, mtl_link = [await _receive_raw(request, settings, share)], None
    if not files:
        raise RequestError("missing-tile", f"the form has no file part named {TILE_PART!r}; {EXPECTED}")
    [first, *more] = files
    if not more and isinstance(first, File) and first.data == b"" and not isinstance(first, LinkedFile):
        raise RequestError("missing-tile", f"the file is empty (0 bytes); {EXPECTED}")
    return Upload(files, dict(values), mtl_link)


async def _receive_raw(request: Request, settings: Settings, share: Share) -> File:
    announced = header(request, b"content-length") or ""
    if announced.isdecimal() and int(announced[:20]) <= min(CHUNK_BYTES, share.left):
        return File(await _receive_small(request, settings), None)
    file = share.open()
    try:
        async with aclosing(bounded(request, settings)) as stream:
            async for chunk in stream:
                if file.on_disk:
                    await in_thread(file.write, chunk)
                else:
                    file.write(chunk)
    except BaseException:
        file.close()
        raise
    return File(await settled(file), None)


async def _receive_small(request: Request, settings: Settings) -> bytes:
    """A body that stays in memory, without what a large one needs."""
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        body = body + piece if body else piece
        if len(body) > settings.max_upload_bytes:
            raise too_large(f"a body of more than {settings.max_upload_bytes:,} bytes", settings)
        if not message.get("more_body", False):
            return body


def _check_announced(request: Request, settings: Settings, spool: Spool) -> None:
    """Refuses by Content-Length, before any of the body is read."""
    text = header(request, b"content-length") or ""
    length = int(text[:20]) if text.isdecimal() else 0
    if length > settings.max_upload_bytes:
        raise too_large(f"a body of {length:,} bytes", settings)
    spool.check(length)
