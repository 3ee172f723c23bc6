"""Zeros that may be values: 0 means nothing in Landsat's files, but clipping makes dark water 0, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.tile_errors import TileWarning

_FROM = 0.05  # share of pixels; bands of one product differ by a pixel or two at its edges


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
    if share < _FROM:
        return ()
    return (
        TileWarning(
            "partly-zero",
            f"{share:.1%} of the pixels are 0 in some bands and measured in others, and taken as missing; "
            "reflectance that was clipped to 0 looks so: send it as it was before, or raised a little",
        ),
    )
