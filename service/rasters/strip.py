"""The rows of a scene that its current windows lie in, read block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bands import BANDS
from model.units import Units, to_dn
from model.windows import TILE_SIZE, Window
from service.http.spool import Spool
from service.rasters.georeference import PixelWindow
from service.rasters.geotiff import GeotiffError, Limits
from service.rasters.kept_blocks import Kept, KeptBlocks, block_bytes
from service.rasters.open_raster import OpenRaster

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
    planes = len(BANDS) + header.alpha
    size = min(rows, header.height) * header.width * planes * np.dtype(header.dtype).itemsize
    if size > limits.max_strip_bytes:
        raise GeotiffError(
            "too-large",
            f"a strip of {rows} rows ({header.width} px wide, in strips or tiles of {block} rows) takes "
            f"{size:,} bytes; expected at most {limits.max_strip_bytes:,}. Best are tiles of 256 x 256",
        )
    blocks = max(1, _PIECE_VALUES // (block * raster.block_cols * planes))
    across = min(blocks, -(-header.width // raster.block_cols))
    return Steps(rows, min(rows, blocks // across * block), across * raster.block_cols)


class Strip:
    """Windows of a scene as DN, whose rows may only increase.

    Windows come row by row, and no block of the file is unpacked twice. So the blocks that windows still
    reach into are kept, on disk if they are large, and in memory the rows of the current windows: 14 bytes a
    pixel of 40 rows.

    Args:
        raster: whose windows; nobody else may use it meanwhile.
        bands: 1-based, of the network's seven.
        units: of the values.
        by: how to read.
        spool: where blocks are kept.
    """

    def __init__(
        self, raster: OpenRaster, bands: tuple[int, ...], units: Units, by: Steps, spool: Spool
    ) -> None:
        self._raster, self._bands, self._units, self._by = raster, bands, units, by
        height, width = raster.header.height, raster.header.width
        planes = len(bands) + raster.has_quality
        self._end = 0  # rows that were read
        self._kept: deque[tuple[PixelWindow, Kept]] = deque()
        self._blocks = KeptBlocks(
            spool,
            block_bytes(planes, min(by.piece_rows, height), min(by.piece_cols, width)),
            block_bytes(planes, min(2 * by.rows, height), width),  # windows lie in two steps at most
        )
        self._first = -1  # of the rows in memory
        self._rows = np.empty((planes, TILE_SIZE, width), np.uint16)

    def of(self, window: Window) -> tuple[NDArray[np.uint16], NDArray[np.bool_], NDArray[np.uint16] | None]:
        """Copies of a window's DN (7, 40, 40), valid pixels (40, 40) and flags (40, 40) if there are any.

        Raises:
            GeotiffError: the file is damaged here.
            SpoolError: there is no room on disk.
        """
        if window.row_off != self._first:
            self._move(window.row_off)
        cut = self._rows[:, :, window.col_off : window.col_off + window.width].copy()
        count = len(self._bands)
        # 0 is where the file has nothing; every other value is at least 1.
        return (
            cut[:count],
            np.asarray((cut[:count] > 0).all(axis=0)),
            cut[count] if len(cut) > count else None,
        )

    def close(self) -> None:
        """Frees what is kept."""
        self._blocks.close()

    def _move(self, first: int) -> None:
        """Brings the rows of the windows that begin at a row into memory."""
        stop = first + TILE_SIZE
        while self._kept and _end(self._kept[0][0]) <= first:
            self._blocks.drop(self._kept.popleft()[1])
        if first >= self._end:  # a stride beyond what was read: begin anew at the block
            self._end = first // self._by.rows * self._by.rows
        while self._end < stop:
            self._read_on(first)
        for window, block in self._kept:
            row, col, height, width = window
            top, bottom = max(first, row), min(stop, row + height)
            if top < bottom:
                found = self._blocks.rows(block, top - row, bottom - row)
                self._rows[:, top - first : bottom - first, col : col + width] = found
        self._first = first

    def _read_on(self, first: int) -> None:
        """The next step, but not the pieces that lie above the first row that is wanted."""
        header = self._raster.header
        stop = min(self._end + self._by.rows, header.height)
        for window in _pieces(self._end, stop, header.width, self._by):
            if _end(window) <= first:
                continue
            pixels = self._raster.read(window, self._bands)
            planes = to_dn(pixels, tiles.find_missing(pixels, header.nodata), self._units)
            if (flags := self._raster.read_quality(window)) is not None:
                planes = np.concatenate([planes, flags[None]])
            self._kept.append((window, self._blocks.keep(planes)))
        self._end = stop


def _end(window: PixelWindow) -> int:
    return window[0] + window[2]


def _pieces(first: int, stop: int, width: int, by: Steps) -> Iterator[PixelWindow]:
    for row in range(first, stop, by.piece_rows):
        for col in range(0, width, by.piece_cols):
            yield row, col, min(by.piece_rows, stop - row), min(by.piece_cols, width - col)
