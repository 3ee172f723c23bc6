"""The first directory of a TIFF, as far as it must be looked at before GDAL does."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

# Classic TIFF and BigTIFF, little and big endian (TIFF 6.0 page 13; BigTIFF design, Aware Systems).
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_GDAL_METADATA = 42112  # XML with band names, scales and offsets
_SAMPLES_PER_PIXEL = 277
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # struct's formats of TIFF's types
_MAX_ENTRIES = 4096  # TIFF knows some hundred tags

Data = bytes | memoryview | mmap.mmap


def with_readable_metadata(data: bytes) -> bytes:
    """The same file; GDAL_METADATA that is not UTF-8 has a question mark for every byte that is not ASCII.

    Band names in Latin-1 would make the whole file unreadable, and rasterio prints a traceback where GDAL
    quotes bytes of broken XML that are not UTF-8 in an error message: noise that anyone could make.
    """
    span, plain = _unreadable(data)
    return data if plain is None else data[: span.start] + plain + data[span.stop :]


def make_metadata_readable(path: Path) -> None:
    """As `with_readable_metadata`, in the file itself, which must be ours."""
    with path.open("r+b") as file:
        if path.stat().st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0) as data:
            span, plain = _unreadable(data)
            if plain is not None:
                data[span] = plain


def _unreadable(data: Data) -> tuple[slice, bytes | None]:
    """Where GDAL_METADATA is, and what to put there; None if it can stay."""
    span = _text_of(data, _GDAL_METADATA)
    text = bytes(data[span])
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return span, bytes(byte if byte < 0x80 else ord("?") for byte in text)
    return span, None


def announced_bands(content: bytes | memoryview | Path) -> int:
    """How many bands a file says it has, 1 if it does not say.

    GDAL makes an object for each before anyone can ask it: 47 MB for the 65,535 that 60 bytes announce.
    """
    if isinstance(content, Path):
        with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _announced(data)
    return _announced(content)


def _announced(data: Data) -> int:
    found = 1
    order = _order(data)
    for tag, kind, _, value in _entries(data):
        if tag == _SAMPLES_PER_PIXEL and kind in _WHOLE_NUMBERS:
            number = order + _WHOLE_NUMBERS[kind]
            if struct.calcsize(number) <= len(value):
                found = max(found, *struct.unpack_from(number, value))
    return found


def _text_of(data: Data, wanted: int) -> slice:
    """Where the value of an ASCII tag of the first directory lies; empty where there is none."""
    for tag, _, length, value in _entries(data):
        if tag == wanted and length > len(value):
            (start,) = struct.unpack(_order(data) + ("Q" if len(value) == 8 else "I"), value)
            return slice(min(start, len(data)), min(start + length, len(data)))
    return slice(0, 0)


def _entries(data: Data) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, count and value or offset of the first directory's entries, as far as there are any."""
    order = _order(data)
    big = bytes(data[2:4]) in (b"+\0", b"\0+")
    header, count_format, entry_format = ("8xQ", "Q", "HHQ8s") if big else ("4xI", "H", "HHI4s")
    try:
        (position,) = struct.unpack_from(order + header, data)
        (entries,) = struct.unpack_from(order + count_format, data, position)
    except (struct.error, OverflowError):  # damaged; GDAL will say how
        return
    position += struct.calcsize(order + count_format)
    step = struct.calcsize(order + entry_format)
    directory = data[position : position + min(entries, _MAX_ENTRIES) * step]
    yield from struct.iter_unpack(order + entry_format, directory[: len(directory) // step * step])


def _order(data: Data) -> str:
    return "<" if bytes(data[:2]) == b"II" else ">"
