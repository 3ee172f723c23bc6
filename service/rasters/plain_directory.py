"""The only directory of a plain TIFF: its entries, and their values where they are as expected.

The files of a data set have the same directory, but for where it lies and what their blocks come to. So what
its bytes say is kept, with places counted from the directory, and looked up by them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

_MAX_ENTRIES = 40
_MAX_TEXT = 8192  # bytes of GDAL_METADATA, of GeoKeys, of what bands have in common
_COG_HINTS = b"GDAL_STRUCTURAL_METADATA"  # after the header: GDAL then reads sizes elsewhere than in tags

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
ASCII, SHORT, LONG, RATIONAL, DOUBLE = 2, 3, 4, 5, 12
_SIZES = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, DOUBLE: 8}
_CODES = {SHORT: "H", LONG: "I", DOUBLE: "d"}

# Texts that mean nothing for pixels and place: names of documents, software, people. Then resolution.
_TEXTS = frozenset((269, 270, 271, 272, 285, 305, 306, 315, 316, 33432))
_FIXED = {282: (RATIONAL, 1), 283: (RATIONAL, 1), 296: (SHORT, 1)}
_BLOCKS = frozenset((273, 279, 324, 325))
_SHAPE = frozenset((254, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339))
_USED = _BLOCKS | _SHAPE | {33550, 33922, 34735, 34736, 34737, 42112, 42113}

Content = bytes | memoryview


class NotPlainError(Exception):
    """GDAL shall read it."""


def expect(plain: bool) -> None:
    """Raises NotPlainError unless something is as expected."""
    if not plain:
        raise NotPlainError


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """What the bytes of a directory say by themselves.

    `values` are the type, the number of values and the place of each tag; `end` is that of the last value.
    `shape` are the pieces outside of the directory which say what pixels and blocks are, but for the places
    and sizes of blocks. All places are counted from the directory's first byte.
    """

    order: str
    values: Mapping[int, tuple[int, int, int]]
    end: int
    shape: tuple[Piece, ...]


Piece = tuple[int, int]
"""Where bytes begin and end, counted from the directory's first byte."""


@lru_cache(maxsize=64)
def _entries_at(magic: bytes, at: int, directory: bytes) -> Entries:
    order = _ORDERS[magic]
    end = len(directory) - 4
    expect(at >= 8 and 2 < end <= 2 + 12 * _MAX_ENTRIES and directory[end:] == bytes(4))
    fields = []
    for place, (tag, kind, length, value) in zip(
        range(10, end, 12), struct.iter_unpack(order + "HHII", directory[2:end]), strict=True
    ):
        if _SIZES[kind] * length > 4:
            fields.append((tag, kind, length, value - at, 0))
        else:  # in the entry itself, its last four bytes
            fields.append((tag, kind, length, place, 0 if tag in _BLOCKS else value))
    return _entries(order, tuple(fields))


@lru_cache(maxsize=64)
def _entries(order: str, fields: tuple[tuple[int, int, int, int, int], ...]) -> Entries:
    values: dict[int, tuple[int, int, int]] = {}
    shape: list[Piece] = []
    last = furthest = 0
    for tag, kind, length, start, _ in fields:  # those within entries tell directories apart
        size = _SIZES[kind] * length
        expect(tag > last and size > 0)
        last = tag
        if tag not in _USED:
            expect((kind, length) == _FIXED.get(tag) or (kind == ASCII and tag in _TEXTS))
        if size > 4 and tag in _SHAPE:
            expect(size <= _MAX_TEXT)
            shape.append((start, start + size))
        furthest = max(furthest, start + size)
        values[tag] = (kind, length, start)
    return Entries(order, values, furthest, tuple(shape))


class Numbers(NamedTuple):
    """The numbers of a tag, in every file with the same directory."""

    layout: struct.Struct
    start: int  # counted from the directory

    def of(self, data: Content, at: int) -> tuple[Any, ...]:
        """As a file has them whose directory is at a place."""
        return self.layout.unpack_from(data, at + self.start)


class Directory:
    """The first and only directory of a file.

    Raises:
        NotPlainError, struct.error, KeyError: it is not plain.
    """

    def __init__(self, data: Content) -> None:
        magic = bytes(data[:4])
        order = _ORDERS[magic]
        (at,) = struct.unpack_from(order + "I", data, 4)
        (number,) = struct.unpack_from(order + "H", data, at)
        end = at + 2 + 12 * number + 4
        expect(number <= _MAX_ENTRIES and end <= len(data))
        expect(bytes(data[8 : 8 + len(_COG_HINTS)]) != _COG_HINTS)
        self.entries = _entries_at(magic, at, bytes(data[at:end]))
        expect(at + self.entries.end <= len(data))
        self.order, self.at = order, at
        self._data, self._values = data, self.entries.values

    def __contains__(self, tag: int) -> bool:
        return tag in self._values

    def has(self, *tags: int) -> bool:
        """Whether any of these is there."""
        return any(tag in self._values for tag in tags)

    @property
    def shape(self) -> bytes:
        """What, with the entries, says all of pixels and blocks but for the places and sizes of blocks."""
        at = self.at
        return b"".join([self._data[at + start : at + end] for start, end in self.entries.shape])

    def where(self, tag: int, kinds: tuple[int, ...], length: int) -> Numbers:
        """Where so many values of a tag are, of one of these types."""
        kind, found, start = self._values[tag]
        expect(kind in kinds and found == length)
        return Numbers(struct.Struct(f"{self.order}{length}{_CODES[kind]}"), start)

    def piece(self, tag: int, kind: int) -> Piece | None:
        """Where the bytes of all values of a type are; None where the tag is not there."""
        if tag not in self._values:
            return None
        found, length, start = self._values[tag]
        size = _SIZES[kind] * length
        expect(found == kind and size <= _MAX_TEXT)
        return start, start + size

    def numbers(self, tag: int, kinds: tuple[int, ...], length: int) -> tuple[int, ...]:
        """So many values of a tag, of one of these types."""
        return self.where(tag, kinds, length).of(self._data, self.at)

    def size(self, tag: int) -> int:
        """One number above 0."""
        (value,) = self.numbers(tag, (SHORT, LONG), 1)
        expect(value > 0)
        return value

    def short(self, tag: int, default: int | None = None) -> int:
        """One SHORT; the default, if there is one, where the tag is not there."""
        if default is not None and tag not in self._values:
            return default
        return self.numbers(tag, (SHORT,), 1)[0]

    def alike(self, tag: int, length: int, default: int | None = None) -> int:
        """The one SHORT that all bands have."""
        if default is not None and tag not in self._values:
            return default
        values = self.numbers(tag, (SHORT,), length)
        expect(values.count(values[0]) == length)
        return values[0]


def raw(data: Content, at: int, piece: Piece | None) -> bytes | None:
    """The bytes of a piece, if there is one, of a file whose directory is at a place."""
    return None if piece is None else bytes(data[at + piece[0] : at + piece[1]])


def text(data: Content, at: int, piece: Piece | None) -> bytes | None:
    """ASCII without the closing NUL; None where there is no piece.

    Raises:
        NotPlainError: it is not plain.
    """
    if (found := raw(data, at, piece)) is None:
        return None
    expect(found.find(b"\0") == len(found) - 1 and found.isascii())
    return found[:-1]
