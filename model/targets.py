"""What the decoder predicts: z-scores as they are, or relative to what the visible patches tell."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Targets = Literal["absolute", "visible", "kriged"]

# Pixels with the variance of the whole data (1, in z-scores) that are counted as seen in every tile. With all
# 400 visible pixels measured a flat band has a scale of 0.1, about 500 DN or a reflectance of 0.014: what is
# below it, mostly noise and haze, is not blown up. The fewer pixels, the less their own spread counts.
PRIOR_PIXELS = 4.0


class Frame(NamedTuple):
    """Zero and unit of a tile's targets, in z-scores."""

    mean: Tensor  # [B, 1, C * p * p], equal within a band; kriged: [B, L, C * p * p], by pixel
    scale: Tensor  # [B, 1, C * p * p], equal within a band

    def relative(self, z: Tensor) -> Tensor:
        """Patches of z-scores [B, L, C * p * p] → targets."""
        return (z - self.mean) / self.scale

    def absolute(self, targets: Tensor) -> Tensor:
        """The inverse of `relative`, float32."""
        return targets.float() * self.scale + self.mean


def visible_frame(patches: Tensor, seen: Tensor, bands: int) -> Frame:
    """Mean and standard deviation of the seen pixels of every tile and band.

    scale² = (sum of squared deviations + PRIOR_PIXELS) / (number + PRIOR_PIXELS). Without any seen pixel,
    mean and scale are 0 and 1: those of the data that the z-scores refer to.

    Args:
        patches: [B, L, C * p * p] float32 z-scores; order inside a patch: band, row, column.
        seen: [B, L, p * p] bool, pixels that are visible and hold a measurement.
        bands: number of bands C.
    """
    B, L, _ = patches.shape
    values = patches.view(B, L, bands, -1)  # [B, L, C, p * p]
    counted = seen.unsqueeze(2)  # [B, L, 1, p * p]
    number = counted.sum((1, 3), keepdim=True).float()  # [B, 1, 1, 1]
    # Selected, not multiplied by 0: nothing of what is hidden gets through, not even an infinity.
    mean = torch.where(counted, values, 0.0).sum((1, 3), keepdim=True) / number.clamp_min(1)  # [B, 1, C, 1]
    squares = torch.where(counted, values - mean, 0.0).square().sum((1, 3), keepdim=True)
    scale = ((squares + PRIOR_PIXELS) / (number + PRIOR_PIXELS)).sqrt()
    shape = (B, 1, bands, values.shape[-1])
    return Frame(mean.expand(shape).flatten(2), scale.expand(shape).flatten(2))
