"""Scales and offsets that are half of what is meant, or of another product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from model.bands import DN_OFFSET, DN_SCALE
from model.tile_errors import TileWarning

# To Sentinel-2 by ESA since January 2022 (processing baseline 04.00); some who pass it on take it off.
SENTINEL_2_ADDS = 1_000
SENTINEL_2_OFFSET = (
    "1,000 was added, as to ESA's Sentinel-2 products since January 2022, send scale=0.0001 and offset=-0.1"
)

# Reflectance above this is not reflectance: clouds and snow reach 1.6 in Level-2 (DN 65535 is 1.602).
MAX_REFLECTANCE = 2.0


def assumed(scale: float | None, offset: float | None, named: str = "scale") -> tuple[TileWarning, ...]:
    """Of an offset alone, and of Landsat's scale alone or with another offset; with others 0 is meant."""
    if scale is None:
        return (
            TileWarning(
                "assumed-scale",
                f"offset={offset:g} came without scale, which was taken as 1; send scale=1 if it is meant",
            ),
        )
    if not math.isclose(scale, DN_SCALE, rel_tol=0.01):
        return ()
    if offset is not None and offset != 0 and not math.isclose(offset, DN_OFFSET, rel_tol=0.01):
        return (
            TileWarning(
                "unlikely-units",
                f"{named}={scale:g} came with offset={offset:g}; Collection-2 Level-2 has {DN_OFFSET:g}, "
                "which is added: send units=dn",
            ),
        )
    if offset is None:
        return (
            TileWarning(
                "assumed-offset",
                f"{named}={scale:g} came without offset, which was taken as 0; Collection-2 Level-2 has "
                f"{DN_OFFSET:g}: send units=dn, or offset=0 with the scale if it is meant",
            ),
        )
    return ()


def guess(kind: np.dtype[Any], high: float, *, like_dn: bool) -> str:
    """What values may be that are neither DN nor reflectance; empty where nothing comes to mind.

    Args:
        kind: type of the values.
        high: their 99th percentile.
        like_dn: whether all bands are as bright as DN are.
    """
    if kind == np.uint8:
        return ". 8 bits are a picture's, made for the eye: send the reflectance that it was made of"
    if kind.kind == "f" and like_dn:
        return ". If these are Level-2 DN stored as floats, send units=dn"
    if kind.kind == "f" and high <= 100 * MAX_REFLECTANCE:
        return ". If this is reflectance in percent, send scale=0.01 and offset=0"
    if MAX_REFLECTANCE < high <= 10_000 * MAX_REFLECTANCE:
        return (
            ". If this is reflectance times 10,000, as in HLS and Sentinel-2 L2A, send units=reflectance_1e4"
            f"; where {SENTINEL_2_OFFSET}"
        )
    return ""


def signed_dn() -> tuple[TileWarning, ...]:
    """Of values that were taken as DN in a type that cannot hold the largest DN."""
    return (
        TileWarning(
            "assumed-dn",
            "int16 values were taken as DN, which reach 65535; if they are reflectance times 10,000 over "
            "snow or cloud, as HLS stores it, send units=reflectance_1e4, else units=dn",
        ),
    )


def possible_offset(low: float) -> tuple[TileWarning, ...]:
    """Of reflectance times 10,000 that is hardly ever below 0.1; `low` is the 1st percentile as stored."""
    if low < SENTINEL_2_ADDS:
        return ()
    return (
        TileWarning(
            "possible-offset",
            f"hardly a value is below {SENTINEL_2_ADDS:,} (1st percentile {low:.6g}), a reflectance of 0.1, "
            f"as over snow and cloud; or, where {SENTINEL_2_OFFSET}",
        ),
    )
