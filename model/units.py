"""What the numbers of a file mean, and their conversion to Collection-2 Level-2 DN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from model.bands import DN_MAX, DN_MIN_VALID, DN_OFFSET, DN_SCALE
from model.tile_errors import TileError, TileWarning
from model.unit_doubts import MAX_REFLECTANCE, assumed, guess, possible_offset, signed_dn

UnitsChoice = Literal["auto", "dn", "reflectance", "reflectance_1e4"]
UnitsName = Literal["dn", "reflectance", "reflectance_1e4", "scale_offset"]

# Level-2 begins at -0.2 (DN 0). What is below this is no measurement but stands for none, as -9999 does: it
# is -0.475 as DN and -0.9999 as reflectance times 10,000.
MIN_REFLECTANCE = -0.3
# Below this in all seven bands is no land or water: reflectance read as if it were times 10,000 (1 / 10,000).
MIN_HIGH_REFLECTANCE = 0.001
# DN 5,500 is a reflectance of -0.05. The lowest median of a band of the real tiles at hand is 6,266 (water),
# while reflectance times 10,000 is above 5,500 over snow and cloud only, there not in shortwave infrared.
MIN_MEDIAN_DN = 5_500
MAX_SAMPLE = 250_000  # pixels whose values are looked at; enough for percentiles, cheap for a whole scene

_CHOICES = (
    "say what they are: units=dn (Collection-2 Level-2 DN), units=reflectance (0 to 1), "
    "units=reflectance_1e4 (reflectance * 10,000), or scale= and offset= with "
    "reflectance = value * scale + offset"
)


@dataclass(frozen=True)
class Units:
    """reflectance = value * scale + offset, per band; `name` is what answers call it."""

    name: UnitsName
    scale: tuple[float, ...]
    offset: tuple[float, ...]


def resolve_units(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    *,
    units: str | None = "auto",
    scale: float | None = None,
    offset: float | None = None,
    file_scales: Sequence[float] | None = None,
    file_offsets: Sequence[float] | None = None,
) -> tuple[Units, tuple[TileWarning, ...]]:
    """Decide what the values are.

    An explicit unit, scale or offset is obeyed, with a warning where the values look otherwise. `auto`:
    scale and offset tags other than 1 and 0 win; floats whose 99th percentile is at most 2 are reflectance;
    integers whose median is at least 5,500 in each band are DN. Level-1 DN cannot be told from Level-2 by
    their values.

    Args:
        pixels: (bands, H, W), integer or floating, as in the file.
        valid: (H, W); only these pixels are looked at, and there must be one.
        units: the request's choice; None = auto.
        scale: the request's; excludes `units`. Alone, the offset is 0.
        offset: the request's; excludes `units`. Alone, the scale is 1.
        file_scales: scale tag of each band.
        file_offsets: offset tag of each band.

    Raises:
        TileError: `bad-parameter` or `unknown-units`.
    """
    count = len(pixels)
    units = units or "auto"
    if units not in get_args(UnitsChoice):
        raise TileError(
            "bad-parameter", f"units is {units[:40]!r}; expected one of {', '.join(get_args(UnitsChoice))}"
        )
    if scale is not None or offset is not None:
        if units != "auto":
            raise TileError(
                "bad-parameter", f"units={units} came with scale or offset; expected one or the other"
            )
        doubts = assumed(scale, offset)
        scale, offset = 1.0 if scale is None else scale, 0.0 if offset is None else offset
        if not (math.isfinite(scale) and math.isfinite(offset) and scale != 0):
            raise TileError(
                "bad-parameter", f"scale={scale}, offset={offset}; expected finite numbers, scale not 0"
            )
        found, warnings = _checked(_uniform("scale_offset", scale, offset, count), pixels, valid)
        return found, (*doubts, *warnings)
    if units == "dn":
        return _checked(_uniform("dn", DN_SCALE, DN_OFFSET, count), pixels, valid)
    if units == "reflectance":
        return _checked(_uniform("reflectance", 1.0, 0.0, count), pixels, valid)
    if units == "reflectance_1e4":
        return _checked(_uniform("reflectance_1e4", 1e-4, 0.0, count), pixels, valid)

    scales = tuple(file_scales or (1.0,) * count)
    offsets = tuple(file_offsets or (0.0,) * count)
    if scales != (1.0,) * count or offsets != (0.0,) * count:
        if not all(map(math.isfinite, (*scales, *offsets))) or 0.0 in scales:
            raise TileError(
                "unknown-units",
                f"the file's scale tags {scales} and offset tags {offsets} are unusable; {_CHOICES}",
            )
        found, warnings = _checked(Units("scale_offset", scales, offsets), pixels, valid)
        alone = scales[0] if len(set(scales)) == 1 and not any(offsets) else 1.0
        return found, (*assumed(alone, None, "the file's scale tag"), *warnings)
    found = _by_values(pixels, valid)
    return found, signed_dn() if found.name == "dn" and pixels.dtype == np.int16 else ()


def to_dn(pixels: npt.NDArray[Any], missing: npt.NDArray[np.bool_], units: Units) -> npt.NDArray[np.uint16]:
    """Convert to Collection-2 Level-2 DN (USGS LSDS-1619): round((reflectance + 0.2) / 2.75e-5).

    Args:
        pixels: (bands, H, W), as in the file.
        missing: (bands, H, W); these become 0, as does what is below any reflectance.
        units: what the values are.

    Returns:
        uint16 (bands, H, W), clipped to 1..65535, 0 where missing. Values that are DN already are only
        rounded and clipped.
    """
    lowest = (MIN_REFLECTANCE - DN_OFFSET) / DN_SCALE
    if units.name == "dn":
        if pixels.dtype == np.uint16:
            return np.where(missing, np.uint16(0), pixels) if missing.any() else pixels.copy()
        values = pixels.astype(np.float64)
    else:
        by_band = (len(pixels), 1, 1)
        scale, offset = np.reshape(units.scale, by_band), np.reshape(units.offset, by_band)
        with np.errstate(over="ignore", invalid="ignore"):  # absurd floats are clipped, NaN is missing
            values = (pixels.astype(np.float64) * scale + (offset - DN_OFFSET)) / DN_SCALE
    missing = missing | (values < lowest)
    values[missing] = 0.0
    dn = np.clip(np.rint(values), DN_MIN_VALID, DN_MAX).astype(np.uint16)
    dn[missing] = 0
    return dn


def _uniform(name: UnitsName, scale: float, offset: float, count: int) -> Units:
    return Units(name, (scale,) * count, (offset,) * count)


def _by_values(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Units:
    values = _sample(pixels, valid)
    floating = pixels.dtype.kind == "f"
    if not floating and _look_like_dn(values):
        return _uniform("dn", DN_SCALE, DN_OFFSET, len(pixels))
    low, median, high = _spread(values)
    if floating and high <= MAX_REFLECTANCE:
        return _uniform("reflectance", 1.0, 0.0, len(pixels))
    darkest = min(_spread(band)[1] for band in values)
    raise TileError(
        "unknown-units",
        f"the units of {pixels.dtype} values with median {median:.6g} ({darkest:.6g} in the darkest band; "
        f"1st percentile {low:.6g}, 99th {high:.6g}) are not clear; {_CHOICES}"
        + guess(pixels.dtype, high, like_dn=darkest >= MIN_MEDIAN_DN),
    )


def _checked(
    units: Units, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> tuple[Units, tuple[TileWarning, ...]]:
    """Obey, but say so where the reflectance that the units give is not of this world."""
    values = _sample(pixels, valid)
    like_dn = _look_like_dn(values)
    if units.name == "dn" and pixels.dtype == np.uint16 and like_dn:
        return units, ()  # no DN of 16 bits is too bright
    scale, offset = np.array(units.scale)[:, None], np.array(units.offset)[:, None]
    with np.errstate(over="ignore"):
        _, median, high = _spread(values.astype(np.float64) * scale + offset)
    low, middle, top = _spread(values)
    dark_enough = high <= MAX_REFLECTANCE and not (units.name == "reflectance_1e4" and like_dn)
    bright_enough = (
        median >= MIN_MEDIAN_DN * DN_SCALE + DN_OFFSET
        and high >= MIN_HIGH_REFLECTANCE
        and (units.name != "dn" or like_dn)
    )
    if dark_enough and bright_enough:  # False for the NaN that absurd floats give
        return units, possible_offset(low) if _is_times_10_000(units) else ()
    name = "scale and offset" if units.name == "scale_offset" else f"units={units.name}"
    return units, (
        TileWarning(
            "unlikely-units",
            f"with {name} the median reflectance is {median:.4g} and the 99th percentile {high:.4g}; the "
            f"values (median {middle:.6g}, 1st percentile {low:.6g}, 99th {top:.6g}) look like another unit",
        ),
    )


def _is_times_10_000(units: Units) -> bool:
    return set(units.scale) == {1e-4} and not any(units.offset)


def _sample(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """(bands, N): the valid pixels, of large rasters those on a coarser grid."""
    step = max(1, math.isqrt(valid.size // MAX_SAMPLE))
    coarse = valid[::step, ::step]
    if not coarse.any():
        step, coarse = 1, valid
    seen = pixels[:, ::step, ::step]
    return seen.reshape(len(pixels), -1) if coarse.all() else seen[:, coarse]


def _look_like_dn(values: npt.NDArray[Any]) -> bool:
    """Whether the median of each band is at least 5,500: counted, which is far cheaper than finding it."""
    above = values >= MIN_MEDIAN_DN
    if above.all():
        return True
    half = values.shape[1] / 2
    return all(
        n > half or (n == half and float(np.median(band)) >= MIN_MEDIAN_DN)
        for n, band in zip(above.sum(axis=1), values, strict=True)
    )


def _spread(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    """1st percentile, median and 99th percentile of all values together."""
    with np.errstate(over="ignore", invalid="ignore"):  # floats near the end of their range
        low, median, high = np.percentile(values.astype(np.float64, copy=False), (1, 50, 99))
    return float(low), float(median), float(high)
