"""The body of a request: files and form fields, bounded while they stream in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePosixPath

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import RequestError
from service.settings import Settings

TILE_PART = "tile"
RAW_TYPES = ("image/tiff", "image/tiff-fx", "image/geotiff", "image/x-tiff", "image/tif")
# What clients send that do not think about it; the bytes then say whether it is a TIFF.
UNSPECIFIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")
CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")
EXPECTED = (
    f"expected image/tiff with the file as the body, or multipart/form-data with the file as the part "
    f"{TILE_PART!r}"
)

_MAX_NAME = 255  # characters of a file name, as file systems have it
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class File:
    """One uploaded file: its bytes, and the base name it came with (None for a raw body)."""

    data: bytes
    source: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request brought: files in their order, and parameters by name as texts in their order."""

    files: list[File]
    values: dict[str, list[str]]


async def receive(request: Request, settings: Settings) -> Upload:
    """Reads the body of a request, raw or multipart, and the query.

    Raises:
        RequestError: another media type, a body over the limit, a damaged multipart body, no or an empty
            tile, a parameter both in the query and in the form.
        starlette.requests.ClientDisconnect: the client has gone.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    multipart = media_type == "multipart/form-data"
    if not multipart and media_type not in RAW_TYPES and media_type not in UNSPECIFIC_TYPES:
        raise RequestError("unsupported-media-type", f"Content-Type is {media_type[:100]!r}; {EXPECTED}")
    if multipart:
        _check_charset(request)
    _check_announced(request, settings)
    values: dict[str, list[str]] = defaultdict(list)
    for name, text in request.query_params.multi_items():
        values[name].append(text)
    if multipart:
        files = await _receive_form(request, settings, values)
    else:
        async with aclosing(_bounded(request, settings)) as stream:
            files = [File(b"".join([chunk async for chunk in stream]), None)]
    if not files:
        raise RequestError("missing-tile", f"the form has no file part named {TILE_PART!r}; {EXPECTED}")
    if len(files) == 1 and not files[0].data:
        raise RequestError("missing-tile", f"the file is empty (0 bytes); {EXPECTED}")
    return Upload(files, dict(values))


def base_name(name: str | None) -> str | None:
    """The last part of a file name as clients send it, without folders and unprintable characters."""
    if not name:
        return None
    return _UNPRINTABLE.sub("", PurePosixPath(name.replace("\\", "/")).name)[:_MAX_NAME] or None


async def _receive_form(request: Request, settings: Settings, values: dict[str, list[str]]) -> list[File]:
    """The files of a form; its fields are added to the values of the query."""
    files: list[File] = []
    fields: dict[str, list[str]] = defaultdict(list)
    form = await _parse_form(request, settings)
    try:
        for name, item in form.multi_items():
            if not isinstance(item, UploadFile):
                fields[name].append(item)
            elif name != TILE_PART:
                raise RequestError("unknown-parameter", f"unknown file part {name[:100]!r}; {EXPECTED}")
            elif item.filename or item.size:  # a blank file field of a form is an empty part without a name
                files.append(File(await item.read(), base_name(item.filename)))
    finally:
        await form.close()
    if any(text.strip() for text in fields.pop(TILE_PART, [])):
        raise RequestError(
            "missing-tile",
            f"the part {TILE_PART!r} is text, not a file: it has no filename. "
            f"With curl, write -F {TILE_PART}=@FILE",
        )
    for name, texts in fields.items():
        if _given(texts) and _given(values.get(name, [])):
            raise RequestError(
                "bad-parameter", f"{name[:100]} came in the query and in the form; expected one of them"
            )
        if _given(texts) or name not in values:
            values[name] = texts
    return files


def _given(texts: list[str]) -> bool:
    return any(text.strip() for text in texts)


class _FormParser(MultiPartParser):
    """Starlette's parser, which takes a form that breaks off for a whole one."""

    ended = False

    def on_end(self) -> None:
        """The closing boundary has come."""
        self.ended = True

    async def parse_to_the_end(self) -> FormData:
        """The form.

        Raises:
            MultiPartException: it is damaged, over the limits, or breaks off.
        """
        form = await self.parse()
        if not self.ended:
            for file in self._files_to_close_on_error:  # the part that broke off is not in the form
                file.close()
            raise MultiPartException("it ends before its closing boundary")
        return form


async def _parse_form(request: Request, settings: Settings) -> FormData:
    parser = _FormParser(
        request.headers,
        _bounded(request, settings),
        max_files=settings.max_tiles,
        max_fields=settings.max_fields,
        max_part_size=int(settings.max_field_kb * 1000),
    )
    parser.spool_max_size = settings.max_upload_bytes  # in memory: the body is bounded, and soon decoded
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


def _check_announced(request: Request, settings: Settings) -> None:
    """Refuses by Content-Length, before any of the body is read."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > settings.max_upload_bytes:
        raise _too_large(f"a body of {int(length[:20]):,} bytes", settings)


async def _bounded(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > settings.max_upload_bytes:
                raise _too_large(f"a body of more than {settings.max_upload_bytes:,} bytes", settings)
            if chunk:
                yield chunk


def _too_large(what: str, settings: Settings) -> RequestError:
    return RequestError(
        "too-large",
        f"{what} came; at most {settings.max_upload_bytes:,} bytes are allowed "
        f"({settings.max_upload_mb:g} MB, LANDMOE_MAX_UPLOAD_MB)",
    )
