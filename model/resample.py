"""Bilinear resampling of a raster with invalid pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


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


@lru_cache(maxsize=64)
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
