"""A plain TIFF, read strictly: whatever is out of the ordinary is left to GDAL.

Plain is one image in a classic TIFF of either byte order: strips or tiles, uncompressed, deflated or LZW,
bands interleaved by pixel or apart, all of one type, placed by one tie point and a pixel size. A directory is
taken only if each of its tags is known and says what is expected of it, to the byte: a file that is taken is
one of which every reader of TIFF 6.0 says the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from service.rasters.georeference import Affine
from service.rasters.plain_directory import (
    ASCII,
    DOUBLE,
    LONG,
    SHORT,
    Directory,
    Entries,
    NotPlainError,
    Numbers,
    Piece,
    expect,
    raw,
    text,
)
from service.rasters.plain_directory import Content as Content
from service.rasters.raster_header import Limits

_MAX_BLOCKS = 4096
_MAX_KEPT = 64

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
NONE, LZW, DEFLATE = 1, 5, 8
# Bytes of all pixels, padding of tiles included. What GDAL costs for each file matters less in larger ones,
# and it unpacks faster: from about here on it is the quicker one.
_MAX_DECODED = {NONE: 1 << 22, LZW: 1 << 18, DEFLATE: 1 << 18}
_COMPRESSIONS = {1: NONE, 5: LZW, 8: DEFLATE, 32946: DEFLATE}
HORIZONTAL, FLOATING = 2, 3  # predictors
_PREDICTORS = {"u": (1, HORIZONTAL), "i": (1, HORIZONTAL), "f": (1, FLOATING)}

GeoKeys = tuple[str, bytes | None, bytes | None, bytes | None]


class PlainTiff(NamedTuple):  # made in a tenth of the time that a frozen dataclass takes
    """Where the pixels of a plain TIFF are, and the tags that say what they mean.

    `order` is struct's and numpy's sign of the byte order. Blocks are strips or tiles of `block_height` x
    `block_width` px (a strip's last one may be cut), row by row, plane by plane where bands lie apart.
    `origin` and `pixel_size` are (x, y) of the first tie point and of ModelPixelScale. `geo_keys` are the
    bytes of the GeoKey tags with their order; `metadata`, `nodata` and `datetime` are GDAL_METADATA,
    GDAL_NODATA and DateTime without the closing NUL. `alpha` is what the last band calls itself.
    """

    order: str
    width: int
    height: int
    bands: int
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
    alpha: bool = False

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
        directory = Directory(data)
        alike, at = _alike(directory), directory.at
        expect(alike.pixels <= limits.max_pixels and alike.bands <= limits.max_bands)
        expect(alike.decoded <= limits.max_decoded_bytes)
        if alike.remark is not None:  # some writers hide more images in one directory, and say so here
            expect(b"ImageJ" not in (text(data, at, alike.remark) or b""))
        sizes = alike.block_sizes.of(data, at)
        # Blocks that share bytes are unpacked once each: a small file could ask for hours of work.
        expect(sum(sizes) <= len(data) and max(sizes) <= alike.largest)
        keys, texts = alike.geo_keys, alike.texts
        return PlainTiff(
            *alike.beginning,
            alike.block_offsets.of(data, at),
            sizes,
            *_placed(data, at, alike),
            (alike.order, raw(data, at, keys[0]), raw(data, at, keys[1]), raw(data, at, keys[2])),
            text(data, at, texts[0]),
            text(data, at, texts[1]),
            text(data, at, texts[2]),
            alike.alpha,
        )
    except (NotPlainError, struct.error, KeyError):
        return None


_Beginning = tuple[str, int, int, int, str, int, int, bool, bool, int, int]


@dataclass(frozen=True, slots=True)
class _Alike:
    """What files with the same directory have in common, and where each has what differs.

    `beginning` are the first fields of their PlainTiff; `pixels` are width times height, `decoded` the bytes
    of all blocks, unpacked, and `largest` those that a packed one may have. `texts` are GDAL_METADATA,
    GDAL_NODATA and DateTime, `remark` is ImageDescription.
    """

    order: str
    beginning: _Beginning
    pixels: int
    bands: int
    decoded: int
    largest: int
    block_offsets: Numbers
    block_sizes: Numbers
    pixel_size: Numbers | None
    tie_point: Numbers | None
    geo_keys: tuple[Piece | None, Piece | None, Piece | None]
    texts: tuple[Piece | None, Piece | None, Piece | None]
    remark: Piece | None
    alpha: bool


_known: dict[tuple[Entries, bytes], _Alike] = {}


def _alike(directory: Directory) -> _Alike:
    """What was found of another file with the same directory, or is found now."""
    key = (directory.entries, directory.shape)
    found = _known.get(key)
    if found is None:
        found = _find(directory)
        if len(_known) >= _MAX_KEPT:
            _known.clear()
        _known[key] = found
    return found


def _find(directory: Directory) -> _Alike:
    """Raises NotPlainError, struct.error, KeyError: it is not plain."""
    width, height, count = directory.size(256), directory.size(257), directory.short(277)
    expect(count > 0)
    extra = _expect_ordinary(directory, count)
    dtype = _TYPES[directory.alike(339, count, 1), directory.alike(258, count)]
    compression = _COMPRESSIONS[directory.short(259)]
    predictor = directory.short(317, 1)
    expect(predictor in _PREDICTORS[dtype[0]] and (compression != NONE or predictor == 1))
    planar = directory.short(284, 1)
    expect(planar in (1, 2))
    tiled = 322 in directory
    expect(not tiled or not directory.has(273, 278, 279))
    expect(tiled or not directory.has(323, 324, 325))
    rows = directory.size(323 if tiled else 278)
    cols = directory.size(322) if tiled else width
    rows = rows if tiled else min(rows, height)
    expect(not tiled or (rows % 16 == 0 and cols % 16 == 0))
    down, across = -(-height // rows), -(-width // cols)
    blocks = down * across * (count if planar == 2 else 1)
    pixels = down * rows * across * cols if tiled else width * height
    decoded = pixels * count * int(dtype[1])
    expect(blocks <= _MAX_BLOCKS and decoded <= _MAX_DECODED[compression])
    order, apart, placed = directory.order, planar == 2, directory.has(33550, 33922)
    return _Alike(
        order=order,
        beginning=(order, width, height, count, dtype, compression, predictor, apart, tiled, rows, cols),
        pixels=width * height,
        bands=count,
        decoded=decoded,
        largest=_MAX_DECODED[compression],
        block_offsets=directory.where(324 if tiled else 273, (SHORT, LONG), blocks),
        block_sizes=directory.where(325 if tiled else 279, (SHORT, LONG), blocks),
        pixel_size=directory.where(33550, (DOUBLE,), 3) if placed else None,
        tie_point=directory.where(33922, (DOUBLE,), 6) if placed else None,
        geo_keys=(
            directory.piece(34735, SHORT),
            directory.piece(34736, DOUBLE),
            directory.piece(34737, ASCII),
        ),
        texts=(directory.piece(42112, ASCII), directory.piece(42113, ASCII), directory.piece(306, ASCII)),
        remark=directory.piece(270, ASCII),
        alpha=338 in directory and directory.numbers(338, (SHORT,), extra)[-1] != 0,
    )


def _expect_ordinary(directory: Directory, count: int) -> int:
    """One whole image from the top, most significant bit first; grey or RGB bands and so many further."""
    colours = {1: 1, 2: 3}[directory.short(262)]
    extra = count - colours
    expect(extra >= 0 and (extra > 0) == (338 in directory))
    if extra:
        expect(max(directory.numbers(338, (SHORT,), extra)) <= 2)
    expect(directory.short(266, 1) == 1 and directory.short(274, 1) == 1)
    expect(254 not in directory or directory.numbers(254, (LONG,), 1) == (0,))
    return extra


def _placed(
    data: Content, at: int, alike: _Alike
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """The origin and the size of a pixel."""
    if alike.pixel_size is None or alike.tie_point is None:
        return None, None
    right, down, deep = alike.pixel_size.of(data, at)
    col, row, level, x, y, z = alike.tie_point.of(data, at)
    expect(right > 0 and down > 0 and col == row == 0)
    expect(deep == level == z == 0)  # with a vertical CRS they are the scale and offset of the values
    expect(isfinite(right) and isfinite(down) and isfinite(x) and isfinite(y))
    return (x, y), (right, down)
