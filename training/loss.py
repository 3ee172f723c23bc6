"""The pretraining loss, with pixels left out that hold no measurement."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from model.moe_mae import Reconstruction
from model.targets import Targets

PATCH_EPSILON = 1e-6  # z-score variance under which a patch counts as flat (as in MAE's normalised targets)


class LossConfig(BaseModel):
    """Weights of the terms, and what counts. The defaults are the published recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unmasked: float = Field(
        default=0.1, ge=0, description="of the error on visible patches; 1 is that on hidden ones"
    )
    auxiliary: float = Field(default=0.5, ge=0, description="of the experts' uneven use")
    ignore_invalid: bool = Field(
        default=False, description="leave out invalid pixels and estimated coastal bands"
    )
    targets: Targets = Field(
        default="absolute",
        description="z-scores; or less the mean of the tile's visible pixels, or less what kriging makes of "
        "them, both in units of their deviation, by band",
    )
    normalise_patches: bool = Field(
        default=False, description="targets with zero mean and unit variance per patch"
    )

    @model_validator(mode="after")
    def _one_unit(self) -> LossConfig:
        if self.normalise_patches and self.targets != "absolute":
            raise ValueError(f"normalise_patches needs targets=absolute; got targets={self.targets}")
        return self


class Losses(NamedTuple):
    """The terms of one batch; all scalars."""

    total: Tensor
    masked: Tensor  # squared error of a patch's 112 values, summed, mean over masked patches
    unmasked: Tensor  # likewise over visible ones
    auxiliary: Tensor


def value_weights(valid: Tensor, b1_estimated: Tensor, bands: int, patch_size: int) -> Tensor:
    """1 for each target value that was measured, else 0.

    Args:
        valid: [B, S, S] bool, pixels with a value in every band.
        b1_estimated: [B] bool, tiles whose first band was computed from the others.
        bands: number of bands C.
        patch_size: pixels p along a patch's side.

    Returns:
        [B, L, C * p * p] float32 in the order of the model's targets.
    """
    weights = valid[:, None].expand(-1, bands, -1, -1).to(torch.float32).clone()
    weights[:, 0] *= (~b1_estimated)[:, None, None]
    return F.unfold(weights, patch_size, stride=patch_size).transpose(1, 2)


def pretraining_losses(result: Reconstruction, weights: Tensor | None, config: LossConfig) -> Losses:
    """Masked + a * unmasked + b * auxiliary loss, over the values with a weight; None weighs all alike.

    With all weights 1 this is the published loss: the mean is over values, times the values of a patch.
    Errors are in the unit of the decoder's targets, so relative ones weigh all tiles and bands alike.
    """
    target = result.target
    values = target.shape[-1]
    counted = torch.ones_like(target) if weights is None else weights
    if config.normalise_patches:
        target = normalised(target, counted)
    difference = result.predicted.float() - target  # [B, L, P]
    if result.frame is not None:
        difference = difference / result.frame.scale
    error = difference.square() * counted
    per_patch, count = error.sum(-1), counted.sum(-1)  # [B, L]
    # A batch in which nothing of a kind is valid contributes nothing, rather than 0 / 0.
    masked, unmasked = (
        values * (per_patch * mask).sum() / (count * mask).sum().clamp_min(1)
        for mask in (result.mask, 1 - result.mask)
    )
    total = masked + config.unmasked * unmasked + config.auxiliary * result.auxiliary_loss
    return Losses(total, masked, unmasked, result.auxiliary_loss)


def normalised(target: Tensor, counted: Tensor) -> Tensor:
    """Each patch with zero mean and unit variance over its counted values (MAE, arXiv 2111.06377, 4.1)."""
    count = counted.sum(-1, keepdim=True).clamp_min(1)
    mean = (target * counted).sum(-1, keepdim=True) / count
    variance = ((target - mean).square() * counted).sum(-1, keepdim=True) / count
    return (target - mean) / (variance + PATCH_EPSILON).sqrt()
