"""The directories of a TIFF, as far as they must be looked at before GDAL does."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Classic TIFF and BigTIFF, little and big endian (TIFF 6.0 page 13; BigTIFF design, Aware Systems).
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MAX_TAG_BYTES = 1 << 20  # real ones of GDAL have some kilobytes
MAX_DIRECTORIES = 1000  # overviews and masks: real files have some ten
_GDAL_METADATA = 42112  # XML with band names, scales and offsets
_SAMPLES_PER_PIXEL = 277
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # struct's formats of TIFF's types
# Bytes of TIFF's types; others have 1.
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Kinds of samples; pixel size, tie points and matrix; GeoKeys; GDAL's metadata and nodata.
_MEANING = frozenset({338, 339, 33550, 33922, 34264, 34735, 34736, 34737, _GDAL_METADATA, 42113})
_PLACES_OF_BLOCKS = frozenset({273, 279, 324, 325})  # offsets and sizes, one for each strip or tile
_MAX_ENTRIES = 4096  # TIFF knows some hundred tags
_ASCII = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))

Data = bytes | memoryview | mmap.mmap
_Entry = tuple[int, int, int, bytes]  # tag, type, count, and value or offset


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
    if span.stop - span.start > MAX_TAG_BYTES:  # will be refused
        return span, None
    text = bytes(data[span])
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return span, text.translate(_ASCII)
    return span, None


class Announced(NamedTuple):
    """What a file says it has and GDAL would take memory for before anyone can ask it.

    `bands` of the first directory, 1 if it does not say: an object for each, 47 MB for the 65,535 that 60
    bytes announce. `tag_bytes` of the largest tag that is in the file, but for places of blocks: it is copied
    several times. `directories`, of which no more are looked at than are allowed. `block_bytes` are those of
    all strips or tiles of a directory; where they are more than the file has, some share theirs, and each is
    unpacked. `cut_off` is a tag of the first directory whose value lies behind the end of the file, of those
    that GDAL goes on without, though they say what the pixels are and where they lie.
    """

    bands: int
    tag_bytes: int
    directories: int
    block_bytes: int
    file_bytes: int
    cut_off: int | None = None


def announced(content: bytes | memoryview | Path) -> Announced:
    """What a file announces, as far as its directories can be read."""
    if isinstance(content, Path):
        with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _announced(data)
    return _announced(content)


def _announced(data: Data) -> Announced:
    bands, largest, directories, block_bytes, cut_off = 1, 0, 0, 0, None
    order = _order(data)
    for directories, entries in enumerate(_directories(data), 1):  # their number, in the end
        for tag, kind, length, value in entries:
            if tag == _SAMPLES_PER_PIXEL and kind in _WHOLE_NUMBERS and directories == 1:
                number = order + _WHOLE_NUMBERS[kind]
                if struct.calcsize(number) <= len(value):
                    bands = max(bands, *struct.unpack_from(number, value))
            size = length * _SIZES.get(kind, 1)
            if tag not in _PLACES_OF_BLOCKS and size <= len(data):  # what is not there, GDAL says itself, or
                largest = max(largest, size)
            if tag in _MEANING and directories == 1 and _end(value, size, order) > len(data):
                cut_off = tag
        block_bytes = max(block_bytes, _block_bytes(data, order, entries))
    return Announced(bands, largest, directories, block_bytes, len(data), cut_off)


def _end(value: bytes, size: int, order: str) -> int:
    """Where the value of an entry ends in the file; 0 of one that is in the directory itself."""
    if size <= len(value):
        return 0
    (start,) = struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)
    return int(start) + size


def _block_bytes(data: Data, order: str, entries: list[_Entry]) -> int:
    """Bytes of all strips or tiles that are in the file."""
    found = {
        tag: _numbers(data, order + _WHOLE_NUMBERS[kind], length, value)
        for tag, kind, length, value in entries
        if tag in _PLACES_OF_BLOCKS and kind in _WHOLE_NUMBERS
    }
    total = 0.0
    for places, sizes in ((273, 279), (324, 325)):
        if places in found and sizes in found:
            count = min(len(found[places]), len(found[sizes]))
            starts, lengths = found[places][:count], found[sizes][:count]
            total += float(lengths[starts + lengths <= len(data)].sum())
    return int(total)


def _numbers(data: Data, number: str, count: int, value: bytes) -> npt.NDArray[np.float64]:
    """Those of an entry, as far as they are in the file."""
    kind = np.dtype(number)
    held = memoryview(value)
    if kind.itemsize * count > len(value):
        (start,) = struct.unpack(number[0] + ("Q" if len(value) == 8 else "I"), value)
        held = memoryview(data)[start:]
    return np.frombuffer(held, kind, min(count, len(held) // kind.itemsize)).astype(np.float64)


def _text_of(data: Data, wanted: int) -> slice:
    """Where the value of an ASCII tag of the first directory lies; empty where there is none."""
    for tag, _, length, value in next(_directories(data), ()):
        if tag == wanted and length > len(value):
            (start,) = struct.unpack(_order(data) + ("Q" if len(value) == 8 else "I"), value)
            return slice(min(start, len(data)), min(start + length, len(data)))
    return slice(0, 0)


def _directories(data: Data) -> Iterator[list[_Entry]]:
    """The entries of one directory after the other, as far as there are any."""
    order = _order(data)
    big = bytes(data[2:4]) in (b"+\0", b"\0+")
    header, count_format, entry_format = ("8xQ", "Q", "HHQ8s") if big else ("4xI", "H", "HHI4s")
    place_format = order + ("Q" if big else "I")
    step = struct.calcsize(order + entry_format)
    seen = {0}
    try:
        (position,) = struct.unpack_from(order + header, data)
        for _ in range(MAX_DIRECTORIES + 1):
            if position in seen:  # the last says 0; one in a circle is damaged
                return
            seen.add(position)
            (entries,) = struct.unpack_from(order + count_format, data, position)
            position += struct.calcsize(order + count_format)
            directory = data[position : position + min(entries, _MAX_ENTRIES) * step]
            yield list(struct.iter_unpack(order + entry_format, directory[: len(directory) // step * step]))
            (position,) = struct.unpack_from(place_format, data, position + entries * step)
    except (struct.error, OverflowError):  # damaged; GDAL will say how
        return


def _order(data: Data) -> str:
    return "<" if bytes(data[:2]) == b"II" else ">"
