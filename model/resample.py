"""Bilinear resampling of a raster with invalid pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

# Up to this length an axis is resampled by a matrix, which is fastest and kept: 330 kB. Longer ones' would be
# mostly zeros, and gigabytes of them where a raster is one row.
_MAX_MATRIX_LENGTH = 1024


def resize(
    dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], size: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Resample to `size` x `size`, each axis by itself.

    Pixel centres lie at half pixels and edges are repeated. An axis that grows is interpolated linearly, as
    `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` does. An axis that shrinks is
    averaged with the same triangle, widened to the output pixel, so that no input pixel is skipped (what
    torch and Pillow call antialias).

    Args:
        dn: uint16 (bands, H, W).
        valid: bool (H, W).
        size: px.

    Returns:
        uint16 (bands, size, size) and bool (size, size). An output pixel touched by an invalid one is invalid
        and 0 in every band.
    """
    if max(valid.shape) <= _MAX_MATRIX_LENGTH:
        return _by_matrices(dn, valid, size)
    # The longer axis first: the other order would blow up a raster of one row before it shrinks.
    values: npt.NDArray[Any] = dn
    bad = ~valid[None]
    for axis in (1, 2) if valid.shape[0] >= valid.shape[1] else (2, 1):
        parts, bad_parts = [], []
        for at, weights in _shares(values.shape[axis], size):
            parts.append(np.moveaxis(values, axis, -1)[..., at] @ weights)
            bad_parts.append(np.moveaxis(bad, axis, -1)[..., at].any(-1))
        values, bad = np.stack(parts, axis), np.stack(bad_parts, axis)
    small = np.rint(values).astype(np.uint16)
    small[:, bad[0]] = 0
    return small, ~bad[0]


def _by_matrices(
    dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], size: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    height, width = valid.shape
    rows, cols = _weights(height, size), _weights(width, size)
    small = np.empty((len(dn), size, size), dtype=np.uint16)
    for band, values in enumerate(dn):  # one band at a time: float64 of a whole scene would not fit
        small[band] = np.rint(rows @ values.astype(np.float64) @ cols.T)
    if valid.all():
        return small, np.ones((size, size), dtype=np.bool_)
    touched = (rows > 0).astype(np.float32) @ (~valid).astype(np.float32) @ (cols > 0).astype(np.float32).T
    still_valid = touched == 0
    small[:, ~still_valid] = 0
    return small, still_valid


@lru_cache(maxsize=32)
def _weights(length: int, size: int) -> npt.NDArray[np.float64]:
    """(size, length): the share of each input pixel in each output pixel; rows sum to 1."""
    step = length / size  # input pixels per output pixel
    reach = max(step, 1.0)  # half width of the triangle, input pixels
    centres = (np.arange(size) + 0.5) * step - 0.5
    distance = np.abs(np.arange(length)[None, :] - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / reach)
    # Rounding may leave a weight of 1e-16 to a pixel that is not touched.
    weights[weights < 1e-9] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


def _shares(length: int, size: int) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """The rows of `_weights`, each without its zeros: which input pixels, and their shares."""
    step = length / size
    reach = max(step, 1.0)
    for centre in (np.arange(size) + 0.5) * step - 0.5:
        near = np.arange(max(0, math.floor(centre - reach)), min(length, math.ceil(centre + reach) + 1))
        weights = 1.0 - np.abs(near - centre) / reach
        touched = weights >= 1e-9
        near, weights = near[touched], weights[touched]
        yield slice(int(near[0]), int(near[-1]) + 1), weights / weights.sum()
