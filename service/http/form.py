"""A multipart form: files, links to files, and fields."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import cast
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from service.errors import RequestError
from service.files import (
    DELIVERY_PARTS,
    MTL_PART,
    TILE_PART,
    File,
    LinkedFile,
    Source,
    base_name,
    group,
)
from service.http.body import bounded, settled
from service.http.form_parser import FormParser
from service.http.spool import Share, SpoolFile
from service.parameters import METADATA
from service.rasters.mtl import MAX_BYTES
from service.settings import Settings

CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")
_LINKED_PARTS = frozenset({TILE_PART, *DELIVERY_PARTS} - {MTL_PART})
_LINK = re.compile(r"https?://", re.IGNORECASE)


async def receive_form(
    request: Request, settings: Settings, values: dict[str, list[str]], share: Share
) -> tuple[list[Source], str | None]:
    """The files of a form, and the link to a delivery's MTL; its fields are added to the values of the query.

    Raises:
        SpoolError: there is no room for it.
        RequestError: a damaged form, or one over the limits; parts that do not belong together, a parameter
            that is in the query too.
        starlette.requests.ClientDisconnect: the client has gone.
    """
    fields: dict[str, list[str]] = defaultdict(list)
    form = await _parse_form(request, settings, share)
    try:
        parts: list[tuple[str, File]] = []
        mtl: bytes | None = None
        for name, item in form.multi_items():
            if not isinstance(item, UploadFile):
                if name in _LINKED_PARTS and _LINK.match(link := item.strip()):
                    parts.append((name, LinkedFile(b"", _name_in(link), link)))
                else:
                    fields[name].append(item)
            elif name == MTL_PART and (item.filename or item.size):
                mtl = await item.read(MAX_BYTES + 1)  # more than it may have
                await item.close()
            elif name == METADATA and (item.filename or item.size):  # a JSON file instead of a field
                fields[name].append(await _text(item, settings))
            elif item.filename or item.size:  # a blank file field of a form is an empty part without a name
                data = await settled(cast(SpoolFile, item.file))
                parts.append((name, File(data, base_name(item.filename))))
        mtl_link = None
        if (text := "".join(fields.pop(MTL_PART, []))).strip():
            mtl_link = text.strip() if _LINK.match(text.strip()) else None
            mtl = text.encode()
        for name in (TILE_PART, *DELIVERY_PARTS):
            if any(text.strip() for text in fields.pop(name, [])):
                raise RequestError(
                    "missing-tile",
                    f"the part {name!r} is text, neither a file, which has a filename, nor a URL. "
                    f"With curl, write -F {name}=@FILE",
                )
        files = group(parts, mtl)
        if len(files) > settings.max_tiles:
            raise RequestError(
                "too-large",
                f"{len(files):,} tiles came; expected at most {settings.max_tiles:,} (LANDMOE_MAX_TILES)",
            )
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
    return files, mtl_link


def _name_in(url: str) -> str | None:
    """The last part of a URL's path."""
    return base_name(unquote(re.split("[?#]", url, maxsplit=1)[0].rpartition("/")[2]))


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


def _given(texts: list[str]) -> bool:
    return any(text.strip() for text in texts)


async def _parse_form(request: Request, settings: Settings, share: Share) -> FormData:
    parser = FormParser(
        request.headers,
        bounded(request, settings),
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


def check_charset(request: Request) -> None:
    """RFC 7578 has no charset for a form. Some clients send one, and Python has codecs that are none.

    Raises:
        RequestError: `unsupported-media-type`.
    """
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise RequestError(
            "unsupported-media-type", f"the form's charset is {charset[:100]!r}; expected {CHARSETS[0]}"
        )
