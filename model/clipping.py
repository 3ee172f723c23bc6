"""Values at the ends of their range: the largest DN, and zeros, which clipping makes of dark water, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.bands import DN_MAX
from model.tile_errors import TileWarning

SATURATED_FROM = 0.05  # share of pixels at the largest DN; snow and glint reach it here and there
_CLIPPED_FROM = 0.05  # share of pixels; bands of one product differ by a pixel or two at its edges


def clipped_warning(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[TileWarning, ...]:
    """Warn of many pixels that are missing because some of their bands are 0, while others are measured.

    Args:
        pixels: (7, H, W), as in the file.
        valid: (H, W).
    """
    if valid.all():
        return ()
    partly = (pixels == 0).any(axis=0) & (pixels > 0).any(axis=0)
    share = np.count_nonzero(partly) / valid.size
    if share < _CLIPPED_FROM:
        return ()
    return (
        TileWarning(
            "partly-zero",
            f"{share:.1%} of the pixels are 0 in some bands and measured in others, and taken as missing; "
            "reflectance that was clipped to 0 looks so: send it as it was before, or raised a little",
        ),
    )


def saturation_warning(dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_]) -> tuple[TileWarning, ...]:
    """Warn of many pixels at the largest DN, which whatever is brighter becomes.

    Args:
        dn: uint16 (7, H, W).
        valid: bool (H, W); one at least.
    """
    if dn.max() < DN_MAX:
        return ()
    share = np.count_nonzero((dn == DN_MAX).any(axis=0) & valid) / np.count_nonzero(valid)
    if share < SATURATED_FROM:
        return ()
    return (
        TileWarning(
            "saturated",
            f"{share:.1%} of the valid pixels have the largest DN, {DN_MAX}, in some band: saturated, or a "
            "value for what is missing, which nodata= names",
        ),
    )
