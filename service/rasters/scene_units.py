"""What the values of a scene are, before its windows are read: said, or told from samples of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.clipping import clipped_warning
from model.tile_errors import TileWarning
from model.units import Units, resolve_units
from service.parameters import TileParameters
from service.rasters.georeference import PixelWindow
from service.rasters.open_raster import OpenRaster

# A scene up to this size is looked at as a whole to tell its units, as a tile is; a larger one in patches.
WHOLE_PIXELS = 1 << 20
_PATCHES = 8  # a side: 8 x 8 patches of at most 128 x 128 px, evenly spread
_PATCH = 128


def scene_units(
    raster: OpenRaster,
    bands: tuple[int, ...],
    parameters: TileParameters,
    strip_rows: int,
    stopped: Callable[[], bool],
) -> tuple[Units, tuple[TileWarning, ...]]:
    """By the request's or the file's word, else from all pixels of a small scene, or from 64 patches.

    Args:
        raster: the scene.
        bands: the seven of it, from 1.
        parameters: what the request says of it.
        strip_rows: that are read at once, where all patches are empty.
        stopped: whether nobody wants to know any more.

    Raises:
        GeotiffError: the file is damaged where it was looked at.
        TileError: the units cannot be told, or the scene has no valid pixel.
    """
    header, index = raster.header, [band - 1 for band in bands]
    pixels, valid = _sample(raster, bands, strip_rows, stopped)
    units, warnings = resolve_units(
        pixels,
        valid,
        units=parameters.units,
        scale=parameters.scale,
        offset=parameters.offset,
        file_scales=[header.scales[i] for i in index],
        file_offsets=[header.offsets[i] for i in index],
    )
    return units, (*warnings, *clipped_warning(pixels, valid))


def _sample(
    raster: OpenRaster, bands: tuple[int, ...], strip_rows: int, stopped: Callable[[], bool]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (7, H, W) to tell the units from, and which of them are valid."""
    header = raster.header
    if header.height * header.width <= WHOLE_PIXELS:
        pixels, valid = _looked_at(raster, bands, [header.whole])
        tiles.check_valid(valid)
        return pixels, valid
    pixels, valid = _looked_at(raster, bands, _patches(raster))
    if valid.any():
        return pixels, valid
    # All patches are empty: a scene with little in it. Its first strip that has something must do.
    for row in range(0, header.height, strip_rows):
        strip = (row, 0, min(strip_rows, header.height - row), header.width)
        pixels, valid = _looked_at(raster, bands, [strip])
        if valid.any() or stopped():
            break
    tiles.check_valid(valid)
    return pixels, valid


def _looked_at(
    raster: OpenRaster, bands: tuple[int, ...], windows: list[PixelWindow]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if len(windows) == 1:
        pixels = raster.read(windows[0], bands)
    else:
        parts = (raster.read(window, bands).reshape(len(bands), 1, -1) for window in windows)
        first = next(parts)
        pixels = np.empty((*first.shape[:2], sum(rows * cols for *_, rows, cols in windows)), first.dtype)
        end = 0
        for part in chain([first], parts):
            pixels[:, :, end : end + part.shape[2]] = part
            end += part.shape[2]
    valid = np.logical_not(tiles.find_missing(pixels, raster.header.nodata).any(axis=0))
    return pixels, np.asarray(valid)


def _patches(raster: OpenRaster) -> list[PixelWindow]:
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
