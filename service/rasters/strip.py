"""The rows of a scene that its current windows lie in, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bands import BANDS
from model.units import Units, to_dn
from model.windows import TILE_SIZE, Window
from service.rasters.geotiff import GeotiffError, Limits
from service.rasters.open_raster import OpenRaster, PixelWindow

_ROWS = 64  # that are read on at least
# Numbers that are read and converted at once, in whole blocks; some arrays of float64 are made of them.
_PIECE_VALUES = 1 << 20


class Steps(NamedTuple):
    """How a scene is read: by so many `rows`, these in pieces of `piece_rows` x `piece_cols` px.

    All are whole blocks of the file, so that no block is unpacked twice.
    """

    rows: int
    piece_rows: int
    piece_cols: int


def steps(raster: OpenRaster, limits: Limits) -> Steps:
    """How to read a raster.

    Raises:
        GeotiffError: `too-large`, its blocks are so high that the rows of them would be.
    """
    block, header = raster.block_rows, raster.header
    rows = -(-_ROWS // block) * block
    size = min(rows, header.height) * header.width * len(BANDS) * np.dtype(header.dtype).itemsize
    if size > limits.max_strip_bytes:
        raise GeotiffError(
            "too-large",
            f"a strip of {rows} rows ({header.width} px wide, in strips or tiles of {block} rows) takes "
            f"{size:,} bytes; expected at most {limits.max_strip_bytes:,}. Best are tiles of 256 x 256",
        )
    blocks = max(1, _PIECE_VALUES // (block * raster.block_cols * len(BANDS)))
    across = min(blocks, -(-header.width // raster.block_cols))
    return Steps(rows, min(rows, blocks // across * block), across * raster.block_cols)


class Strip:
    """Windows of a scene as DN, whose rows may only increase.

    Windows come row by row, and no block of the file is unpacked twice. So the rows of one step are held, and
    the 39 before them that windows still reach into: 15 bytes a pixel. All else is bounded.

    Args:
        raster: whose windows; nobody else may use it meanwhile.
        bands: 1-based, of the network's seven.
        units: of the values.
        by: how to read.
    """

    def __init__(self, raster: OpenRaster, bands: tuple[int, ...], units: Units, by: Steps) -> None:
        self._raster, self._bands, self._units, self._by = raster, bands, units, by
        self._first = self._end = 0  # rows that are held
        shape = (min(by.rows + TILE_SIZE - 1, raster.header.height), raster.header.width)
        self._dn = np.empty((len(bands), *shape), np.uint16)
        self._valid = np.empty(shape, bool)
        self._flags = np.empty(shape, np.uint16) if raster.has_quality else None

    def of(self, window: Window) -> tuple[NDArray[np.uint16], NDArray[np.bool_], NDArray[np.uint16] | None]:
        """Copies of a window's DN (7, 40, 40), valid pixels (40, 40) and flags (40, 40) if there are any.

        Raises:
            GeotiffError: the file is damaged here.
        """
        while self._end < window.row_off + window.height:
            self._drop(window.row_off)
            self._read_on()
        rows = slice(window.row_off - self._first, window.row_off - self._first + window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        flags = None if self._flags is None else self._flags[rows, cols].copy()
        return self._dn[:, rows, cols].copy(), self._valid[rows, cols].copy(), flags

    def _drop(self, first: int) -> None:
        """Makes room for a step: forgets the rows above the first one that is still wanted."""
        if first >= self._end:  # a stride beyond what was read: begin anew at the block
            self._first = self._end = first // self._by.rows * self._by.rows
            return
        gone, kept = first - self._first, self._end - first
        for rows in (*self._dn, self._valid, *(() if self._flags is None else (self._flags,))):
            rows[:kept] = rows[gone : gone + kept]
        self._first = first

    def _read_on(self) -> None:
        header = self._raster.header
        stop = min(self._end + self._by.rows, header.height)
        for window in _pieces(self._end, stop, header.width, self._by):
            row, col, height, width = window
            at = (slice(row - self._first, row - self._first + height), slice(col, col + width))
            pixels = self._raster.read(window, self._bands)
            missing = tiles.find_missing(pixels, header.nodata)
            self._dn[:, *at] = to_dn(pixels, missing, self._units)
            self._valid[at] = ~missing.any(axis=0)
            if self._flags is not None and (flags := self._raster.read_quality(window)) is not None:
                self._flags[at] = flags
        self._end = stop


def _pieces(first: int, stop: int, width: int, by: Steps) -> Iterator[PixelWindow]:
    for row in range(first, stop, by.piece_rows):
        for col in range(0, width, by.piece_cols):
            yield row, col, min(by.piece_rows, stop - row), min(by.piece_cols, width - col)
