"""The directory of a plain TIFF, read strictly: whatever is out of the ordinary is left to GDAL.

Plain is one image in a classic TIFF of either byte order: strips or tiles, uncompressed or deflated, bands
interleaved by pixel or apart, all of one type, placed by one tie point and a pixel size. A directory is taken
only if each of its tags is known here and says what is expected of it, to the byte: a file that is taken is
one of which every reader of TIFF 6.0 says the same.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from service.rasters.georeference import Affine
from service.rasters.raster_header import Limits

_MAX_BLOCKS = 4096
_MAX_ENTRIES = 40
_MAX_TEXT = 8192  # bytes of GDAL_METADATA and of GeoKeys
_COG_HINTS = b"GDAL_STRUCTURAL_METADATA"  # after the header: GDAL then reads sizes elsewhere than in tags

_SHORT, _LONG, _DOUBLE = 3, 4, 12
_SIZES = {2: 1, _SHORT: 2, _LONG: 4, 5: 8, _DOUBLE: 8}
_CODES = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}

# (SampleFormat, BitsPerSample) → numpy's code. GDAL makes something else of other sizes.
_TYPES = {
    (1, 8): "u1",
    (1, 16): "u2",
    (1, 32): "u4",
    (2, 16): "i2",
    (2, 32): "i4",
    (3, 32): "f4",
    (3, 64): "f8",
}
NONE, DEFLATE = 1, 8
# Bytes of all pixels, padding of tiles included. What GDAL costs for each file matters less in larger ones,
# and it unpacks faster: from about here on it is the quicker one.
_MAX_DECODED = {NONE: 1 << 22, DEFLATE: 1 << 18}
_COMPRESSIONS = {1: NONE, 8: DEFLATE, 32946: DEFLATE}
HORIZONTAL, FLOATING = 2, 3  # predictors
_PREDICTORS = {"u": (1, HORIZONTAL), "i": (1, HORIZONTAL), "f": (1, FLOATING)}

# Texts that mean nothing for pixels and place: names of documents, software, people. Then resolution.
_TEXTS = frozenset((269, 270, 271, 272, 285, 305, 306, 315, 316, 33432))
_FIXED = {282: (5, 1), 283: (5, 1), 296: (_SHORT, 1)}
_IMAGE = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)
_USED = frozenset((*_IMAGE, 33550, 33922, 34735, 34736, 34737, 42112, 42113))

Content = bytes | memoryview
GeoKeys = tuple[str, bytes | None, bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class PlainTiff:
    """Where the pixels of a plain TIFF are, and the tags that say what they mean.

    `order` is struct's and numpy's sign of the byte order. Blocks are strips or tiles of `block_height` x
    `block_width` px (a strip's last one may be cut), row by row, plane by plane where bands lie apart.
    `origin` and `pixel_size` are (x, y) of the first tie point and of ModelPixelScale. `geo_keys` are the
    bytes of the GeoKey tags with their order; `metadata`, `nodata` and `datetime` are GDAL_METADATA,
    GDAL_NODATA and DateTime without the closing NUL.
    """

    order: str
    width: int
    height: int
    count: int
    dtype: str
    compression: int
    predictor: int
    apart: bool
    tiled: bool
    block_height: int
    block_width: int
    block_offsets: tuple[int, ...]
    block_sizes: tuple[int, ...]
    origin: tuple[float, float] | None
    pixel_size: tuple[float, float] | None
    geo_keys: GeoKeys
    metadata: bytes | None
    nodata: bytes | None
    datetime: bytes | None

    def transform(self, *, point: bool) -> Affine | None:
        """As GDAL makes it; None without tags of it.

        Args:
            point: whether the tie point is the first pixel's centre (RasterPixelIsPoint), not its corner.
        """
        if self.origin is None or self.pixel_size is None:
            return None
        (x, y), (right, down) = self.origin, self.pixel_size
        if point:
            x, y = x - right * 0.5, y + down * 0.5
        return (right, 0.0, x, 0.0, -down, y)


def parse(data: Content, limits: Limits) -> PlainTiff | None:
    """The directory of a plain TIFF within limits; None for everything else, damaged or not."""
    try:
        return _Directory(data).profile(limits)
    except (_NotPlainError, struct.error, KeyError):
        return None


class _NotPlainError(Exception):
    """GDAL shall read it."""


class _Directory:
    """The entries of the first and only directory."""

    def __init__(self, data: Content) -> None:
        magic = bytes(data[:4])
        self._data, self._order = data, {b"II*\0": "<", b"MM\0*": ">"}[magic]
        (at,) = struct.unpack_from(self._order + "I", data, 4)
        (number,) = struct.unpack_from(self._order + "H", data, at)
        end = at + 2 + 12 * number
        following = struct.unpack_from(self._order + "I", data, end)  # fails beyond the end
        _expect(at >= 8 and 0 < number <= _MAX_ENTRIES and following == (0,))
        _expect(bytes(data[8 : 8 + len(_COG_HINTS)]) != _COG_HINTS)
        self._entries: dict[int, tuple[int, int, int]] = {}  # tag → type, number of values, where they lie
        last = 0
        for tag, kind, length, value in struct.iter_unpack(self._order + "HHII", data[at + 2 : end]):
            size = _SIZES[kind] * length
            _expect(tag > last and 0 < size <= len(data))
            last = tag
            start = value
            if size <= 4:
                start = at + 2 + 12 * len(self._entries) + 8
            _expect(start + size <= len(data))
            if tag not in _USED:
                _expect((kind, length) == _FIXED.get(tag) or (kind == 2 and tag in _TEXTS))
            self._entries[tag] = (kind, length, start)

    def profile(self, limits: Limits) -> PlainTiff:
        """What the entries say, if all of it is plain and within limits."""
        width, height, count = self._size(256), self._size(257), self._short(277)
        _expect(width * height <= limits.max_pixels and 0 < count <= limits.max_bands)
        self._expect_ordinary(count)
        dtype = _TYPES[self._alike(339, count, 1), self._alike(258, count)]
        compression = _COMPRESSIONS[self._short(259)]
        predictor = self._short(317, 1)
        _expect(predictor in _PREDICTORS[dtype[0]] and (compression != NONE or predictor == 1))
        planar = self._short(284, 1)
        _expect(planar in (1, 2))
        tiled = 322 in self._entries
        offsets, sizes, _ = (324, 325, 323) if tiled else (273, 279, 278)
        _expect(not tiled or not {273, 278, 279} & self._entries.keys())
        _expect(tiled or not {323, 324, 325} & self._entries.keys())
        rows = self._size(323 if tiled else 278)
        cols = self._size(322) if tiled else width
        rows = rows if tiled else min(rows, height)
        _expect(not tiled or (rows % 16 == 0 and cols % 16 == 0))
        down, across = -(-height // rows), -(-width // cols)
        planes = count if planar == 2 else 1
        blocks = down * across * planes
        pixels = down * rows * across * cols if tiled else width * height
        decoded = pixels * count * int(dtype[1])
        _expect(blocks <= _MAX_BLOCKS and decoded <= min(_MAX_DECODED[compression], limits.max_decoded_bytes))
        return PlainTiff(
            order=self._order,
            width=width,
            height=height,
            count=count,
            dtype=dtype,
            compression=compression,
            predictor=predictor,
            apart=planar == 2,
            tiled=tiled,
            block_height=rows,
            block_width=cols,
            block_offsets=self._numbers(offsets, (_SHORT, _LONG), blocks),
            block_sizes=self._numbers(sizes, (_SHORT, _LONG), blocks),
            **self._place(),
            geo_keys=(
                self._order,
                self._bytes(34735, _SHORT),
                self._bytes(34736, _DOUBLE),
                self._bytes(34737, 2),
            ),
            metadata=self._text(42112),
            nodata=self._text(42113),
            datetime=self._text(306),
        )

    def _expect_ordinary(self, count: int) -> None:
        """One whole image from the top, most significant bit first; grey or RGB bands and any further."""
        colours = {1: 1, 2: 3}[self._short(262)]
        extra = count - colours
        _expect(extra >= 0 and (extra > 0) == (338 in self._entries))
        if extra:
            _expect(max(self._numbers(338, (_SHORT,), extra)) <= 2)
        _expect(self._short(266, 1) == 1 and self._short(274, 1) == 1)
        _expect(254 not in self._entries or self._numbers(254, (_LONG,), 1) == (0,))
        if 270 in self._entries:  # some writers hide more images in one directory, and say so here
            _expect(b"ImageJ" not in (self._text(270) or b""))

    def _place(self) -> dict[str, tuple[float, float] | None]:
        if 33550 not in self._entries and 33922 not in self._entries:
            return {"origin": None, "pixel_size": None}
        right, down, _ = self._numbers(33550, (_DOUBLE,), 3)
        col, row, _, x, y, _ = self._numbers(33922, (_DOUBLE,), 6)
        _expect(right > 0 and down > 0 and (col, row) == (0, 0))
        _expect(all(map(math.isfinite, (right, down, x, y))))
        return {"origin": (x, y), "pixel_size": (right, down)}

    def _numbers(self, tag: int, kinds: tuple[int, ...], length: int) -> tuple[int, ...]:
        kind, found, start = self._entries[tag]
        _expect(kind in kinds and found == length)
        return struct.unpack_from(f"{self._order}{length}{_CODES[kind]}", self._data, start)

    def _size(self, tag: int) -> int:
        (value,) = self._numbers(tag, (_SHORT, _LONG), 1)
        _expect(value > 0)
        return value

    def _short(self, tag: int, default: int | None = None) -> int:
        if default is not None and tag not in self._entries:
            return default
        return self._numbers(tag, (_SHORT,), 1)[0]

    def _alike(self, tag: int, length: int, default: int | None = None) -> int:
        """The one value that all bands have."""
        if default is not None and tag not in self._entries:
            return default
        values = self._numbers(tag, (_SHORT,), length)
        _expect(values.count(values[0]) == length)
        return values[0]

    def _bytes(self, tag: int, kind: int) -> bytes | None:
        if tag not in self._entries:
            return None
        found, length, start = self._entries[tag]
        size = _SIZES[kind] * length
        _expect(found == kind and size <= _MAX_TEXT)
        return bytes(self._data[start : start + size])

    def _text(self, tag: int) -> bytes | None:
        text = self._bytes(tag, 2)
        if text is None:
            return None
        _expect(text.find(b"\0") == len(text) - 1 and text.isascii())
        return text[:-1]


def _expect(plain: bool) -> None:
    if not plain:
        raise _NotPlainError
