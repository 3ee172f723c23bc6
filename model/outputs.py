"""What the encoder gives of a tile: embeddings, by their names and shapes, and how its experts were used."""

from __future__ import annotations

from typing import Literal, get_args

from model.config import ModelConfig

Pooling = Literal["mean", "cls", "patch_mean", "patch_mean_std", "tokens"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
ROUTING = "routing"  # how often each expert of each layer was chosen; older bundles lack it


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of each embedding of one tile, float32: from N tokens of m values, before the final LayerNorm."""
    m = config.embed_dim
    return {
        "mean": (m,),
        "cls": (m,),
        "patch_mean": (m,),
        "patch_mean_std": (2 * m,),
        "tokens": (config.num_tokens, m),
    }
