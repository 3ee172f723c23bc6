"""Reconstruction error on tiles that are not trained on, per band, beside the simplest guess."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from model.bands import BANDS
from model.moe_mae import MoEMAE
from training.data import Batch, TileSet
from training.loss import LossConfig, normalised, value_weights

SEED = 20_210_611  # of the masks, the same in every validation of every run


def validate(
    model: MoEMAE,
    tiles: TileSet,
    *,
    batch_size: int,
    mask_ratio: float,
    device: torch.device,
    loss: LossConfig,
) -> dict[str, float]:
    """Squared error per masked value, over measured values only.

    In z-scores whatever the targets are, but for `normalise_patches`: a decoder that was trained so says
    nothing of a patch's level and contrast, so all is in that unit then.

    Returns:
        `masked`: over all bands. `band_mean`: of guessing each band's mean over the tile's visible pixels.
        `ratio`: the first through the second. `SR_B1` … `SR_B7`: per band, NaN where it
        was measured in no tile.
    """
    bands, size = model.config.in_channels, model.config.patch_size
    model_error = np.zeros(bands)
    guess_error = np.zeros(bands)
    counts = np.zeros(bands)
    noise = torch.Generator().manual_seed(SEED)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in _batches(tiles, batch_size):
            drawn = torch.rand(len(batch.dn), model.config.num_patches, generator=noise).to(device)
            dn, encodings = (
                torch.from_numpy(batch.dn).to(device),
                torch.from_numpy(batch.encodings).to(device),
            )
            valid = torch.from_numpy(batch.valid).to(device)
            result = model(dn, encodings, drawn, mask_ratio, valid)
            weights = value_weights(
                valid,
                torch.from_numpy(batch.b1_estimated).to(device),
                bands,
                size,
            )
            target = result.target
            if loss.normalise_patches:
                target = normalised(target, weights if loss.ignore_invalid else torch.ones_like(weights))
            shape = (*target.shape[:2], bands, size * size)  # [B, L, C, p * p]
            target, weights = target.view(shape), weights.view(shape)
            hidden = weights * result.mask[..., None, None]
            guess = _visible_mean(target, weights - hidden)
            for total, predicted in (
                (model_error, result.predicted.float().view(shape)),
                (guess_error, guess),
            ):
                total += ((predicted - target).square() * hidden).sum((0, 1, 3)).cpu().numpy()
            counts += hidden.sum((0, 1, 3)).cpu().numpy()
    model.train(was_training)
    total, guessed = model_error.sum() / counts.sum(), guess_error.sum() / counts.sum()
    per_band = np.where(counts > 0, model_error / np.maximum(counts, 1), np.nan)
    summary = {"masked": total, "band_mean": guessed, "ratio": total / max(guessed, 1e-12)}
    return {k: float(v) for k, v in {**summary, **dict(zip(BANDS, per_band, strict=False))}.items()}


def _visible_mean(target: Tensor, weights: Tensor) -> Tensor:
    """Mean of the values with a weight, per tile and band: [B, 1, C, 1]."""
    total = (target * weights).sum((1, 3), keepdim=True)
    return total / weights.sum((1, 3), keepdim=True).clamp_min(1)


def _batches(tiles: TileSet, size: int) -> Iterator[Batch]:
    for start in range(0, len(tiles), size):
        yield tiles.gather(np.arange(start, min(start + size, len(tiles))))
