"""Tiles as pictures: which bands, and how their values become brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.bands import DN_OFFSET, DN_SCALE

TRUE_COLOUR = (3, 2, 1)  # red, green, blue: SR_B4, SR_B3, SR_B2
# Short-wave infrared, near infrared, red: vegetation green, bare soil pink, water black.
FALSE_COLOUR = (5, 4, 3)
PERCENTILES = (2.0, 98.0)
MIN_SPAN = 0.04  # reflectance; below it a stretch shows noise (open water)
GAMMA = 1 / 1.3  # lifts the dark tones in which vegetation lies

FloatArray = NDArray[np.float64]


def reflectance(dn: NDArray[np.generic]) -> FloatArray:
    """Collection-2 DN → surface reflectance."""
    result: FloatArray = dn.astype(np.float64) * DN_SCALE + DN_OFFSET
    return result


def limits(dn: NDArray[np.generic], bands: tuple[int, int, int]) -> FloatArray:
    """Darkest and brightest reflectance (3, 2) to show of a tile (7, S, S), from its valid pixels.

    Every band has its own darkest value (haze lifts blue more than red), but the span is that of the band
    that varies most: bands stretched one by one would give colours that the ground does not have. A pair of
    pictures is comparable only if both use the same limits.
    """
    valid = (dn != 0).all(axis=0)
    values = reflectance(dn[list(bands)])[:, valid] if valid.any() else np.zeros((3, 1))
    low, high = np.percentile(values, PERCENTILES, axis=1)
    span = max(float((high - low).max()), MIN_SPAN)
    start = low - max(0.0, MIN_SPAN - float((high - low).max())) / 2
    result: FloatArray = np.stack([start, start + span], axis=1)
    return result


def rgb(dn: NDArray[np.generic], bands: tuple[int, int, int], shown: FloatArray | None = None) -> FloatArray:
    """A picture (S, S, 3) in [0, 1]; pixels that are 0 in a band (no data) are white."""
    low_high = limits(dn, bands) if shown is None else shown
    values = reflectance(dn[list(bands)])
    scaled = (values - low_high[:, :1, None]) / (low_high[:, 1:, None] - low_high[:, :1, None])
    picture = np.moveaxis(np.clip(scaled, 0, 1) ** GAMMA, 0, -1)
    picture[~(dn != 0).all(axis=0)] = 1.0
    return picture
