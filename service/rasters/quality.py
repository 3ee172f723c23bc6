"""QA_PIXEL of Landsat Collection 2: what each pixel was judged to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.tile_errors import TileWarning

# Bits of QA_PIXEL for Landsat 8 and 9 (USGS LSDS-1619, table 6-2).
BITS = {"fill": 0, "dilated_cloud": 1, "cirrus": 2, "cloud": 3, "cloud_shadow": 4, "snow": 5, "water": 7}
# What hides the ground. Shadow does not: the ground is seen, only darker.
CLOUDY = ("dilated_cloud", "cirrus", "cloud")
WARN_FROM = 0.2  # share of cloudy pixels; below, the ground still decides about the embedding

_NAME = "qa_pixel"
_FILL_BIT = np.uint16(1 << BITS["fill"])
_CLOUDY_BITS = np.uint16(sum(1 << BITS[name] for name in CLOUDY))


def band(descriptions: Sequence[str | None]) -> int | None:
    """The 1-based band of a file that is called QA_PIXEL, as exports have it; None if not just one is."""
    found = [n for n, text in enumerate(descriptions, 1) if text is not None and text.lower() == _NAME]
    return found[0] if len(found) == 1 else None


def flags_of(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Flags from what a file holds; what can be none is fill.

    So is 0: exports and what warps files write it where there is nothing. A pixel of Landsat has always more,
    its confidences.

    Args:
        pixels: of any shape; integers, or floats that hold such, as the other bands of the file may be.
    """
    if pixels.dtype == np.uint16:
        return np.where(pixels == 0, _FILL_BIT, pixels)
    limits = np.iinfo(np.uint16)
    possible = (pixels >= limits.min) & (pixels <= limits.max)  # False for NaN
    flags = np.where(possible, pixels, 0).astype(np.uint16)
    return np.where((flags != 0) & (flags == pixels), flags, _FILL_BIT)


def check_type(dtype: str) -> None:
    """Refuses what cannot be flags.

    Raises:
        ValueError: the pixels are not unsigned integers of 16 bits.
    """
    if dtype != "uint16":
        raise ValueError(f"QA_PIXEL has {dtype} pixels; expected uint16 flags")


def cloud_fraction(flags: npt.NDArray[Any]) -> float:
    """Share of cloudy pixels among those that are not fill; 0 where all are fill.

    Args:
        flags: QA_PIXEL, uint16, of any shape.
    """
    seen = (flags & _FILL_BIT) == 0
    count = int(np.count_nonzero(seen))
    return int(np.count_nonzero(((flags & _CLOUDY_BITS) != 0) & seen)) / count if count else 0.0


def shares(flags: npt.NDArray[Any]) -> dict[str, float]:
    """Share of all pixels with each flag, by its name."""
    return {
        name: int(np.count_nonzero(flags & np.uint16(1 << bit))) / flags.size for name, bit in BITS.items()
    }


def warning(cloudy: float) -> tuple[TileWarning, ...]:
    """Of a tile that much of is cloudy."""
    if cloudy < WARN_FROM:
        return ()
    return (TileWarning("cloudy", f"QA_PIXEL calls {cloudy:.1%} of the valid pixels cloud or cirrus"),)
