"""The size of pixels on the ground, which the network knows one of."""

from __future__ import annotations

from model.tile_errors import TileWarning
from model.windows import TILE_SIZE, Window

GSD = 30.0  # m, Landsat's pixel size, the only one trained on
GSD_TOLERANCE = 1.25  # ratio; 24 to 37.5 m pass (a 30 m grid in degrees is off by this much at mid-latitudes)


def pixel_size_warning(gsd_m: float | None, window: Window | None = None) -> tuple[TileWarning, ...]:
    """Warn of pixels far from the 30 m that the network was trained on, or no longer square.

    Args:
        gsd_m: in the file; None = unknown.
        window: that became a tile; one of another size was resized, and so were its pixels.
    """
    height, width = (TILE_SIZE, TILE_SIZE) if window is None else (window.height, window.width)
    if gsd_m is None:
        if max(height, width) <= GSD_TOLERANCE**2 * min(height, width):
            return ()
        return _warned(
            f"fit=resize made a square of {width} x {height} px; the network was trained on square pixels"
        )
    across, down = gsd_m * width / TILE_SIZE, gsd_m * height / TILE_SIZE
    if all(1 / GSD_TOLERANCE <= seen_m / GSD <= GSD_TOLERANCE for seen_m in (across, down)):
        return ()
    seen = f"{across:.4g} m" if across == down else f"{across:.4g} x {down:.4g} m"
    resized = "" if height == width == TILE_SIZE else f" ({gsd_m:.4g} m before fit=resize)"
    return _warned(f"pixels are {seen}{resized}; the network was trained on {GSD:g} m")


def _warned(message: str) -> tuple[TileWarning, ...]:
    return (TileWarning("unusual-pixel-size", message),)
