"""How the positions of a network start."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.config import NUM_EXTRA_TOKENS
from model.moe_mae import MoEMAE

# Longest wavelength over 2 pi, in patches. Transformers for text take 10,000; on a grid of ten by ten most of
# such waves would be flat.
LONGEST_WAVE = 100.0


def grid_waves(side: int, dim: int) -> Tensor:
    """Sines and cosines of row and column: [side * side, dim], as in MAE (arXiv 2111.06377, appendix A.1)."""
    count = dim // 4
    rates = LONGEST_WAVE ** -(torch.arange(count) / max(1, count))  # radians per patch
    angles = torch.arange(side)[:, None] * rates  # [side, count]
    along = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, dim / 2]
    rows, columns = along[:, None].expand(-1, side, -1), along[None].expand(side, -1, -1)
    waves = torch.cat([rows, columns], dim=2).flatten(0, 1)
    return torch.nn.functional.pad(waves, (0, dim - waves.shape[1]))


def start_positions_as_waves(model: MoEMAE) -> None:
    """Start the learned positions of the patches where neighbours are alike.

    From small random positions every masked patch looks the same to the decoder, and a run begins with
    hundreds of steps in which it predicts the tile's mean.
    """
    with torch.no_grad():
        for embedding, skipped in (
            (model.encoder.pos_embed, NUM_EXTRA_TOKENS),
            (model.decoder_pos_embed, 0),
        ):
            patches, dim = embedding.shape[1] - skipped, embedding.shape[2]
            embedding[0, skipped:] = grid_waves(math.isqrt(patches), dim).to(embedding)
