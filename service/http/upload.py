"""The body of a request: files and form fields, bounded while they stream in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from service.errors import RequestError
from service.files import DELIVERY_PARTS, EXPECTED, MTL_PART, TILE_PART, File, Source, base_name, group
from service.http.form_parser import FormParser
from service.http.headers import header
from service.http.in_thread import in_thread
from service.http.spool import Share, Spool, SpoolFile
from service.parameters import METADATA
from service.rasters.mtl import MAX_BYTES
from service.rasters.tiff_header import make_metadata_readable
from service.settings import Settings

RAW_TYPES = ("image/tiff", "image/tiff-fx", "image/geotiff", "image/x-tiff", "image/tif")
# What clients send that do not think about it; the bytes then say whether it is a TIFF.
UNSPECIFIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")
_CHUNK_BYTES = 1 << 18
CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request brought: rasters in their order, and parameters by name as texts in their order."""

    files: list[Source]
    values: dict[str, list[str]]

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
        )
    if multipart:
        _check_charset(request)
    _check_announced(request, settings, spool)
    share = spool.share()
    values: dict[str, list[str]] = defaultdict(list)
    if request.scope["query_string"]:
        for name, text in request.query_params.multi_items():
            values[name].append(text)
    if multipart:
        files = await _receive_form(request, settings, values, share)
    else:
        files = [await _receive_raw(request, settings, share)]
    if not files:
        raise RequestError("missing-tile", f"the form has no file part named {TILE_PART!r}; {EXPECTED}")
    if len(files) == 1 and isinstance(files[0], File) and files[0].data == b"":
        raise RequestError("missing-tile", f"the file is empty (0 bytes); {EXPECTED}")
    return Upload(files, dict(values))


async def _receive_raw(request: Request, settings: Settings, share: Share) -> File:
    announced = header(request, b"content-length") or ""
    if announced.isdecimal() and int(announced[:20]) <= min(_CHUNK_BYTES, share.left):
        return File(await _receive_small(request, settings), None)
    file = share.open()
    try:
        async with aclosing(_bounded(request, settings)) as stream:
            async for chunk in stream:
                if file.on_disk:
                    await in_thread(file.write, chunk)
                else:
                    file.write(chunk)
    except BaseException:
        file.close()
        raise
    return File(await _settled(file), None)


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
            raise _too_large(f"a body of more than {settings.max_upload_bytes:,} bytes", settings)
        if not message.get("more_body", False):
            return body


async def _receive_form(
    request: Request, settings: Settings, values: dict[str, list[str]], share: Share
) -> list[Source]:
    """The files of a form; its fields are added to the values of the query."""
    fields: dict[str, list[str]] = defaultdict(list)
    form = await _parse_form(request, settings, share)
    try:
        parts: list[tuple[str, File]] = []
        mtl: bytes | None = None
        for name, item in form.multi_items():
            if not isinstance(item, UploadFile):
                fields[name].append(item)
            elif name == MTL_PART and (item.filename or item.size):
                mtl = await item.read(MAX_BYTES + 1)  # more than it may have
                await item.close()
            elif name == METADATA and (item.filename or item.size):  # a JSON file instead of a field
                fields[name].append(await _text(item, settings))
            elif item.filename or item.size:  # a blank file field of a form is an empty part without a name
                data = await _settled(cast(SpoolFile, item.file))
                parts.append((name, File(data, base_name(item.filename))))
        if (text := "".join(fields.pop(MTL_PART, []))).strip():
            mtl = text.encode()
        for name in (TILE_PART, *DELIVERY_PARTS):
            if any(text.strip() for text in fields.pop(name, [])):
                raise RequestError(
                    "missing-tile",
                    f"the part {name!r} is text, not a file: it has no filename. "
                    f"With curl, write -F {name}=@FILE",
                )
        files = group(parts, mtl)
    except BaseException:
        await form.close()
        raise
    for name, texts in fields.items():
        if _given(texts) and _given(values.get(name, [])):
            raise RequestError(
                "bad-parameter", f"{name[:100]} came in the query and in the form; expected one of them"
            )
        if _given(texts) or name not in values:
            values[name] = texts
    return files


async def _text(item: UploadFile, settings: Settings) -> str:
    """A small file as a field would bring it."""
    limit = int(settings.max_field_kb * 1000)
    content = await item.read(limit + 1)
    await item.close()
    if len(content) > limit:
        raise RequestError(
            "too-large", f"the part {METADATA!r} has more than {limit:,} bytes; expected fewer"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            "bad-parameter", f"the part {METADATA!r} is no UTF-8: {error.reason}; expected JSON"
        ) from error


async def _settled(file: SpoolFile) -> bytes | SpoolFile:
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


def _given(texts: list[str]) -> bool:
    return any(text.strip() for text in texts)


async def _parse_form(request: Request, settings: Settings, share: Share) -> FormData:
    parser = FormParser(
        request.headers,
        _bounded(request, settings),
        max_files=max(settings.max_tiles, len(DELIVERY_PARTS)),
        max_fields=settings.max_fields,
        max_part_size=int(settings.max_field_kb * 1000),
    )
    parser.share, parser.max_tiles = share, settings.max_tiles
    try:
        return await parser.parse_to_the_end()
    except MultiPartException as error:
        if error.message.startswith(("Too many", "Part exceeded", "Field exceeded")):
            raise RequestError("too-large", f"{error.message} (limits of this service)") from error
        raise RequestError(
            "malformed-body", f"multipart/form-data cannot be read: {error.message}"
        ) from error


def _check_charset(request: Request) -> None:
    """RFC 7578 has no charset for a form. Some clients send one, and Python has codecs that are none."""
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise RequestError(
            "unsupported-media-type", f"the form's charset is {charset[:100]!r}; expected {CHARSETS[0]}"
        )


def _check_announced(request: Request, settings: Settings, spool: Spool) -> None:
    """Refuses by Content-Length, before any of the body is read."""
    text = header(request, b"content-length") or ""
    length = int(text[:20]) if text.isdecimal() else 0
    if length > settings.max_upload_bytes:
        raise _too_large(f"a body of {length:,} bytes", settings)
    spool.check(length)


async def _bounded(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    received = 0
    pending: list[bytes] = []  # network chunks are small; each write to disk is a trip to a thread
    waiting = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > settings.max_upload_bytes:
                raise _too_large(f"a body of more than {settings.max_upload_bytes:,} bytes", settings)
            pending.append(chunk)
            waiting += len(chunk)
            if waiting >= _CHUNK_BYTES:
                yield b"".join(pending)
                pending, waiting = [], 0
    if waiting:
        yield b"".join(pending)


def _too_large(what: str, settings: Settings) -> RequestError:
    return RequestError(
        "too-large",
        f"{what} came; at most {settings.max_upload_bytes:,} bytes are allowed "
        f"({settings.max_upload_mb:g} MB, LANDMOE_MAX_UPLOAD_MB)",
    )
