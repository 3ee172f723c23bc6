"""The size of pixels on the ground, which the network knows one of."""

from __future__ import annotations

import math

from model.tile_errors import TileWarning
from model.windows import TILE_SIZE, Window

GSD = 30.0  # m, Landsat's pixel size, the only one trained on
GSD_TOLERANCE = 1.25  # ratio; 24 to 37.5 m pass (a 30 m grid in degrees is off by this much at mid-latitudes)


def pixel_size_warning(gsd_m: float | None, window: Window | None = None) -> tuple[TileWarning, ...]:
    """Warn of a pixel size far from the 30 m that the network was trained on.

    Args:
        gsd_m: in the file; None = unknown = no warning.
        window: that became a tile; one of another size was resized, and so were its pixels.
    """
    if gsd_m is None:
        return ()
    seen_m = gsd_m if window is None else gsd_m * math.sqrt(window.height * window.width) / TILE_SIZE
    if 1 / GSD_TOLERANCE <= seen_m / GSD <= GSD_TOLERANCE:
        return ()
    resized = "" if seen_m == gsd_m else f" ({gsd_m:.4g} m before fit=resize)"
    return (
        TileWarning(
            "unusual-pixel-size",
            f"pixels are {seen_m:.4g} m{resized}; the network was trained on {GSD:g} m",
        ),
    )
