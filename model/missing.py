"""Pixels that a raster does not have: which they are, how many may be, what is fed in their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bands import MEAN
from model.config import NodataFill
from model.tile_errors import TileError, TileWarning

MIN_VALID_FRACTION = 0.5  # below, a warning


def find_missing(pixels: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where a file has nothing: the declared value, NaN, inf and 0 as stored. Of the shape of `pixels`."""
    missing: npt.NDArray[np.bool_] = pixels == 0
    floating = pixels.dtype.kind == "f"
    if floating:
        missing |= ~np.isfinite(pixels)
    if nodata is not None and math.isfinite(nodata) and nodata != 0:
        # A value declared beyond the range of float32 becomes inf there, and is missing already.
        with np.errstate(over="ignore"):
            missing |= pixels == (pixels.dtype.type(nodata) if floating else nodata)
    return missing


def check_valid(valid: npt.NDArray[np.bool_]) -> tuple[TileWarning, ...]:
    """Refuse pixels of which none is valid, and warn where more than half are not.

    Raises:
        TileError: `empty-tile`.
    """
    count, total = int(np.count_nonzero(valid)), valid.size
    if count == 0:
        raise TileError(
            "empty-tile",
            f"none of the {total} pixels is valid; expected at least one that is neither nodata, NaN nor "
            "0 (as clipped reflectance may be) in any of the seven bands, nor hidden by a mask or an alpha "
            "band of the file",
        )
    if count < MIN_VALID_FRACTION * total:
        return (TileWarning("mostly-nodata", f"only {count / total:.1%} of the tile's pixels are valid"),)
    return ()


def fill(
    dn: npt.NDArray[np.uint16],
    valid: npt.NDArray[np.bool_],
    nodata_fill: NodataFill,
    mean: Sequence[float] = MEAN,
) -> npt.NDArray[np.uint16]:
    """What invalid pixels are fed as.

    Args:
        dn: uint16 (..., 7, H, W).
        valid: bool (..., H, W).
        nodata_fill: `as_is` leaves them; `band_mean` sets all bands of an invalid pixel to the rounded means.
        mean: DN, per band.

    Returns:
        uint16 (..., 7, H, W); the input itself where nothing is to be filled.
    """
    if nodata_fill == "as_is" or valid.all():
        return dn
    means = np.array([math.floor(value + 0.5) for value in mean], dtype=np.uint16)[:, None, None]
    return np.where(valid[..., None, :, :], dn, means)
