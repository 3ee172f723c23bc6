"""The windows of a scene, read strip by strip: memory does not grow with the scene's height."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bands import BANDS
from model.bundle import Bundle
from model.tile_errors import TileError, TileWarning
from model.units import Units, resolve_units, to_dn
from model.windows import TILE_SIZE, GridWindow
from service.describe import Description, Place, PreparedTile, Said, where
from service.files import Source
from service.outcomes import Skipped
from service.parameters import RequestOptions, TileParameters
from service.prepare import clouds
from service.rasters.geotiff import GeotiffError, Limits
from service.rasters.open_raster import OpenRaster

# A scene up to this size is looked at as a whole to tell its units, as a tile is; a larger one in patches.
_WHOLE_PIXELS = 1 << 20
_PATCHES = 8  # a side: 8 x 8 patches of at most 128 x 128 px, evenly spread
_PATCH = 128
_STRIP_ROWS = 64  # at least; strips are whole rows of the file's blocks, so that each block is read once

Window = tuple[GridWindow, PreparedTile | Skipped]


class SceneGrid:
    """One scene's windows in row-major order. One thread at a time may use it.

    What the values are is decided once for the whole scene, with the file's or the request's word, else from
    all pixels of a scene of up to a megapixel, else from 64 patches; all windows are converted alike.

    Args:
        index: of the scene in the request.
        source: a file or a delivery.
        parameters: what the request says of it.
        options: with the stride and how many clouds are allowed.
        bundle: whose rules of preparation hold.
        limits: of the raster; those of decoded bytes hold for a strip.

    Raises:
        GeotiffError, TileError, MetadataError: as `service.prepare.prepare`.
    """

    def __init__(
        self,
        index: int,
        source: Source,
        parameters: TileParameters,
        options: RequestOptions,
        bundle: Bundle,
        limits: Limits,
    ) -> None:
        self.index = index
        self._said = Said(source, parameters, bundle)
        self._options = options
        self.stride = options.stride or TILE_SIZE
        self._lock = threading.Lock()
        self._raster = OpenRaster(source, limits, whole=False)
        try:
            header = self._raster.header
            tiles.windows(header.height, header.width, self.stride)  # refuses what has none
            self._bands = tiles.select_bands(
                header.count, header.descriptions, parameters.bands, source=source.source
            )
            self._piece = _piece_rows(self._raster, limits)
        except BaseException:
            self._raster.close()
            raise
        self.rows = (header.height - TILE_SIZE) // self.stride + 1
        self.cols = (header.width - TILE_SIZE) // self.stride + 1
        self.place = header.place
        self._windows: Iterator[Window] | None = None
        self._closing = False

    def __len__(self) -> int:
        return self.rows * self.cols

    def take(self, count: int) -> list[Window]:
        """The next windows, at most so many; none at the end.

        Raises:
            GeotiffError: the file is damaged here.
            TileError: the units cannot be told, or the scene has no valid pixel.
        """
        with self._lock:
            if self._windows is None:
                self._windows = self._all()
            return list(islice(self._windows, count))

    def close(self) -> None:
        """Lets the file go; a thread that reads stops soon."""
        self._closing = True
        with self._lock:
            self._windows = iter(())
            self._raster.close()

    def _all(self) -> Iterator[Window]:
        units, unit_warnings = self._resolve_units()
        raster, header = self._raster, self._raster.header
        description = self._said.of(header, raster.acquired, units.name)
        description.warnings += [*unit_warnings, *tiles.pixel_size_warning(header.gsd_m)]
        fixed = self._fixed_place(description)
        strip = _Strip(raster, self._bands, units, self._piece)
        for grid in tiles.windows(header.height, header.width, self.stride):
            if self._closing:
                return
            dn, valid, flags = strip.of(grid.window)
            tile = tiles.cut(dn, valid, tiles.Window(0, grid.window.col_off, TILE_SIZE, TILE_SIZE))
            yield grid, self._prepared(grid, tile, flags, description, fixed)

    def _prepared(
        self,
        grid: GridWindow,
        tile: tiles.Tile,
        flags: NDArray[np.uint16] | None,
        description: Description,
        fixed: Place | None,
    ) -> PreparedTile | Skipped:
        if not tile.valid.any():
            return Skipped("empty")
        if flags is not None:
            flags = flags[:, tile.window.col_off : tile.window.col_off + TILE_SIZE]
        cloudy = clouds(flags, allowed := self._options.max_cloud_fraction)
        if allowed is not None and cloudy is not None and cloudy > allowed:
            return Skipped("cloudy")
        place = fixed
        if place is None:
            center = description.header.place.center(grid.window) if description.header.place else None
            place = Place(None, None, "missing") if center is None else Place(*center, "file")
        given = self._said.parameters.id or str(self.index)
        identity = {
            "id": f"{given}_r{grid.row}_c{grid.col}",
            "row": grid.row,
            "col": grid.col,
            "window": list(grid.window),
        }
        tile = tiles.Tile(tile.dn, tile.valid, tile.valid_fraction, grid.window)
        return description.tile(tile, place, flags, identity)

    def _fixed_place(self, description: Description) -> Place | None:
        """The place of every window; None where each has its own."""
        header, parameters = description.header, self._said.parameters
        if header.center is None or parameters.location_source in ("request", "none"):
            place = where(parameters, header, description.warnings)
            if header.center is None:
                description.warnings.append(
                    TileWarning(
                        "missing-georeferencing",
                        "the scene does not say where it is; its windows have no footprint and "
                        + ("all have the given lat and lon" if place.lat is not None else "no place"),
                    )
                )
            return place
        if parameters.lat is not None:
            description.warnings.append(
                TileWarning(
                    "unused-parameter",
                    "lat and lon are not used: every window of a georeferenced scene has its own place; "
                    "location_source=request uses them",
                )
            )
        return None

    def _resolve_units(self) -> tuple[Units, tuple[TileWarning, ...]]:
        raster, parameters = self._raster, self._said.parameters
        header, index = raster.header, [band - 1 for band in self._bands]
        pixels, valid = self._sample()
        return resolve_units(
            pixels,
            valid,
            units=parameters.units,
            scale=parameters.scale,
            offset=parameters.offset,
            file_scales=[header.scales[i] for i in index],
            file_offsets=[header.offsets[i] for i in index],
        )

    def _sample(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (7, H, W) to tell the units from, and which of them are valid."""
        header = self._raster.header
        if header.height * header.width <= _WHOLE_PIXELS:
            pixels, valid = self._looked_at([header.whole])
            tiles.check_valid(valid)
            return pixels, valid
        pixels, valid = self._looked_at(_patches(self._raster))
        if valid.any():
            return pixels, valid
        # All patches are empty: a scene with little in it. Its first strip that has something must do.
        for row in range(0, header.height, self._piece):
            strip = (row, 0, min(self._piece, header.height - row), header.width)
            pixels, valid = self._looked_at([strip])
            if valid.any() or self._closing:
                break
        tiles.check_valid(valid)
        return pixels, valid

    def _looked_at(self, windows: list[tuple[int, int, int, int]]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        parts = [self._raster.read(window, self._bands) for window in windows]
        if parts[0].dtype.kind not in "iuf":
            raise TileError(
                "unsupported-pixel-type",
                f"pixels are {parts[0].dtype}; expected integers or floating-point numbers",
            )
        if len(parts) == 1:
            pixels = parts[0]
        else:
            pixels = np.concatenate([part.reshape(len(part), 1, -1) for part in parts], axis=2)
        valid = np.logical_not(tiles.find_missing(pixels, self._raster.header.nodata).any(axis=0))
        return pixels, np.asarray(valid)


class _Strip:
    """The rows of the scene that the current windows lie in, as DN."""

    def __init__(self, raster: OpenRaster, bands: tuple[int, ...], units: Units, piece: int) -> None:
        self._raster, self._bands, self._units, self._piece = raster, bands, units, piece
        self._first = self._end = 0  # rows that are held
        width = raster.header.width
        self._dn = np.empty((len(bands), 0, width), np.uint16)
        self._valid = np.empty((0, width), bool)
        self._flags = np.empty((0, width), np.uint16) if raster.has_quality else None

    def of(
        self, window: tiles.Window
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_], NDArray[np.uint16] | None]:
        """DN (7, 40, W), valid pixels (40, W) and flags of the rows of a window; rows may only increase."""
        first, stop = window.row_off, window.row_off + window.height
        if first > self._first:
            gone = min(first, self._end) - self._first
            self._dn, self._valid = self._dn[:, gone:], self._valid[gone:]
            self._flags = None if self._flags is None else self._flags[gone:]
            self._first += gone
            if first > self._end:  # a stride beyond what was read: begin anew at the block
                self._first = self._end = first // self._piece * self._piece
        while self._end < stop:
            self._read_on()
        at = slice(first - self._first, stop - self._first)
        flags = None if self._flags is None else self._flags[at]
        return self._dn[:, at], self._valid[at], flags

    def _read_on(self) -> None:
        header = self._raster.header
        rows = min(self._piece, header.height - self._end)
        window = (self._end, 0, rows, header.width)
        pixels = self._raster.read(window, self._bands)
        missing = tiles.find_missing(pixels, header.nodata)
        self._dn = np.concatenate([self._dn, to_dn(pixels, missing, self._units)], axis=1)
        self._valid = np.concatenate([self._valid, ~missing.any(axis=0)])
        if self._flags is not None and (flags := self._raster.read_quality(window)) is not None:
            self._flags = np.concatenate([self._flags, flags])
        self._end += rows


def _piece_rows(raster: OpenRaster, limits: Limits) -> int:
    """Rows that are read at once: whole rows of blocks."""
    block = raster.block_rows
    rows = -(-_STRIP_ROWS // block) * block
    header = raster.header
    size = min(rows, header.height) * header.width * len(BANDS) * np.dtype(header.dtype).itemsize
    if size > limits.max_strip_bytes:
        raise GeotiffError(
            "too-large",
            f"a strip of {rows} rows ({header.width} px wide, in strips or tiles of {block} rows) takes "
            f"{size:,} bytes; expected at most {limits.max_strip_bytes:,}. Best are tiles of 256 x 256",
        )
    return rows


def _patches(raster: OpenRaster) -> list[tuple[int, int, int, int]]:
    """Windows spread over a large raster, each at the beginning of a block."""
    header = raster.header

    def starts(length: int, block: int) -> list[int]:
        middles = (int((i + 0.5) * length / _PATCHES) for i in range(_PATCHES))
        return sorted({middle // block * block for middle in middles})

    return [
        (row, col, min(_PATCH, header.height - row), min(_PATCH, header.width - col))
        for row in starts(header.height, raster.block_rows)
        for col in starts(header.width, raster.block_cols)
    ]
