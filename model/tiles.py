"""From a raster array to the tile that the network sees: seven bands, DN, 40 x 40 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.band_selection import contradiction_warning, select_bands
from model.clipping import clipped_warning, saturation_warning
from model.missing import check_valid, fill, find_missing
from model.pixel_size import GSD, pixel_size_warning
from model.resample import resize
from model.tile_errors import TileError, TileWarning
from model.units import MIN_REFLECTANCE, UnitsName, resolve_units, to_dn
from model.windows import TILE_SIZE, GridWindow, Window, windows

__all__ = [
    "CROP_MAX",
    "GSD",
    "TILE_SIZE",
    "GridWindow",
    "Prepared",
    "Tile",
    "TileError",
    "TileWarning",
    "Window",
    "check_size",
    "check_valid",
    "contradiction_warning",
    "cut",
    "cut_window",
    "fill",
    "find_missing",
    "fit",
    "pixel_size_warning",
    "prepare",
    "resolve_units",
    "saturation_warning",
    "select_bands",
    "to_dn",
    "windows",
]

CROP_MAX = 63  # px; larger sides would lose more than half of the picture to the centre crop

FIT_CHOICES = (
    "fit=crop (the centre 40 x 40), fit=resize (the whole to 40 x 40) or fit=grid (every 40 x 40 window)"
)
FIT_SMALL = "fit=resize (the whole to 40 x 40); crop and grid need 40 px a side"


@dataclass(frozen=True)
class Prepared:
    """A raster brought to the seven bands and to DN, of its own size.

    `dn` is uint16 (7, H, W) with 0 where the file has nothing; `valid` is bool (H, W), False where any band
    has nothing; `bands` are the 1-based bands of the file that were used.
    """

    dn: npt.NDArray[np.uint16]
    valid: npt.NDArray[np.bool_]
    bands: tuple[int, ...]
    units: UnitsName
    warnings: tuple[TileWarning, ...]


@dataclass(frozen=True)
class Tile:
    """What the network sees, before invalid pixels are filled.

    `dn` is uint16 (7, 40, 40), `valid` is bool (40, 40), `valid_fraction` its share, and `window` the pixels
    of the raster that the tile shows.
    """

    dn: npt.NDArray[np.uint16]
    valid: npt.NDArray[np.bool_]
    valid_fraction: float
    window: Window


def prepare(
    pixels: npt.NDArray[Any],
    *,
    nodata: float | None = None,
    descriptions: Sequence[str | None] = (),
    alpha: bool = False,
    bands: str | None = None,
    units: str | None = "auto",
    scale: float | None = None,
    offset: float | None = None,
    file_scales: Sequence[float] | None = None,
    file_offsets: Sequence[float] | None = None,
    source: str | None = None,
) -> Prepared:
    """Choose the seven bands of a raster, find its valid pixels and convert it to DN.

    Missing are the declared nodata value, NaN, inf, 0 as stored in the file, for real files carry undeclared
    zeros, and what is far below any reflectance. A pixel that misses one band is invalid.

    Args:
        pixels: (bands, H, W), integer or floating.
        nodata: the file's declared value.
        descriptions: the file's band names.
        alpha: whether the last band calls itself alpha. Where it is 0 all is missing, unless it is one of
            the seven.
        bands: see `select_bands`.
        units: see `resolve_units`, also for the four that follow; the file's tags are for all its bands.
        scale: reflectance per unit.
        offset: reflectance at 0.
        file_scales: scale tag of each band of the file.
        file_offsets: offset tag of each band of the file.
        source: the file's name, used in messages only.

    Raises:
        TileError: as `select_bands` and `resolve_units`; `empty-tile` where no pixel is valid;
            `unsupported-pixel-type` for values that are neither integers nor floats.
    """
    chosen = select_bands(len(pixels), descriptions, bands, alpha=alpha, source=source)
    if pixels.dtype.kind not in "iuf":
        raise TileError(
            "unsupported-pixel-type",
            f"pixels are {pixels.dtype}; expected integers or floating-point numbers",
        )
    index = [band - 1 for band in chosen]
    seven = pixels if chosen == tuple(range(1, len(pixels) + 1)) else pixels[index]
    if alpha and len(pixels) not in chosen:  # so the seven are a copy; 0 is no value of a band
        seven[:, find_missing(pixels[-1], None)] = 0
    missing = find_missing(seven, nodata)
    valid = np.logical_not(missing.any(axis=0))
    check_valid(valid)
    clipped = clipped_warning(seven, valid)
    resolved, warnings = resolve_units(
        seven,
        valid,
        units=units,
        scale=scale,
        offset=offset,
        file_scales=[file_scales[i] for i in index] if file_scales else None,
        file_offsets=[file_offsets[i] for i in index] if file_offsets else None,
    )
    dn = to_dn(seven, missing, resolved)
    if dn.dtype != seven.dtype:  # as 16-bit DN nothing is below any reflectance
        measured = (dn > 0).all(axis=0)
        if (lost := np.count_nonzero(valid) - np.count_nonzero(measured)) > 0:
            check_valid(valid := np.asarray(measured))
            warnings += (
                TileWarning(
                    "undeclared-nodata",
                    f"{lost / valid.size:.1%} of the pixels are below a reflectance of {MIN_REFLECTANCE:g}, "
                    "as -9999 is, and taken as missing; the file declares no such value (nodata= does)",
                ),
            )
    warnings += clipped
    if bands and bands.strip():  # else they were chosen by these names
        warnings += contradiction_warning(chosen, len(pixels), descriptions)
    return Prepared(dn, valid, chosen, resolved.name, warnings)


def fit(dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], mode: str | None = None) -> Tile:
    """Bring a raster to 40 x 40.

    Args:
        dn: uint16 (7, H, W).
        valid: bool (H, W).
        mode: `crop` takes the centre, at offset (side - 40) // 2. `resize` is bilinear (see
            `model.resample.resize`). None crops where both sides are 40 to 63 px.

    Raises:
        TileError: `wrong-size` for a raster that the mode does not fit; `bad-parameter` for an unknown mode;
            `empty-tile` where missing pixels are so spread that none of the resized ones is without.
    """
    height, width = valid.shape
    check_size(height, width, mode)
    if mode == "resize":
        small, still_valid = resize(dn, valid, TILE_SIZE)
        if not still_valid.any() and valid.any():
            raise TileError(
                "empty-tile",
                f"{np.count_nonzero(valid) / valid.size:.1%} of the {width} x {height} px are valid, but "
                f"each of the {TILE_SIZE} x {TILE_SIZE} that fit=resize makes of them reaches a missing one; "
                "send fit=crop or fit=grid, which leave pixels as they are, or fill the gaps before",
            )
        return Tile(small, still_valid, float(still_valid.mean()), Window(0, 0, height, width))
    top, left = (height - TILE_SIZE) // 2, (width - TILE_SIZE) // 2
    return cut(dn, valid, Window(top, left, TILE_SIZE, TILE_SIZE))


def check_size(height: int, width: int, mode: str | None) -> None:
    """Refuse what `fit` does, which a file's header tells before its pixels are read.

    Raises:
        TileError: as `fit`.
    """
    if mode not in (None, "crop", "resize"):
        raise TileError("bad-parameter", f"fit is {mode[:40]!r}; expected {FIT_CHOICES}")
    if mode is None and (min(height, width) < TILE_SIZE or max(height, width) > CROP_MAX):
        choices = FIT_CHOICES if min(height, width) >= TILE_SIZE else FIT_SMALL
        raise TileError(
            "wrong-size",
            f"the raster is {width} x {height} px; only sides of {TILE_SIZE} to {CROP_MAX} px are "
            f"cropped unasked. Send {choices}",
        )
    if mode == "crop" and min(height, width) < TILE_SIZE:
        raise TileError(
            "wrong-size",
            f"the raster is {width} x {height} px, too small for fit=crop, which needs {TILE_SIZE} px "
            "a side; send fit=resize, which enlarges it",
        )


def cut(dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], window: Window) -> Tile:
    """The tile of one window of the raster; arrays as in `fit`."""
    inside = np.ascontiguousarray(cut_window(valid, window))
    share = np.count_nonzero(inside) / inside.size
    return Tile(np.ascontiguousarray(cut_window(dn, window)), inside, share, window)


def cut_window(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """A view of the window of an array (..., H, W)."""
    rows = slice(window.row_off, window.row_off + window.height)
    cols = slice(window.col_off, window.col_off + window.width)
    return pixels[..., rows, cols]
