"""How much arithmetic a tile is: what a rate in tiles/s is compared with a machine's matrix rate by."""

from __future__ import annotations

from model.config import NUM_EXTRA_TOKENS, NUM_METADATA_TOKENS, ModelConfig


def flops_per_tile(config: ModelConfig) -> int:
    """Floating-point operations of one tile's matrix products in the fused encoder (see fused.py).

    A multiplication and its addition count as two. Elementwise work (normalisation, softmax, SiLU, the mix of
    experts) is not counted, nor is it part of the rate that this is divided by: a share of the matrix rate
    says how far that work, and the memory, keep the products from it.
    """
    N, m = config.num_tokens, config.embed_dim
    d = m // config.num_heads
    patches = config.num_patches * config.patch_values * m
    metadata = 2 * NUM_METADATA_TOKENS * NUM_EXTRA_TOKENS * m
    qkv = N * m * (config.num_heads + 2 * config.num_groups) * d
    attention = 2 * config.num_heads * N * N * d  # scores, and weights times values
    out = N * m * m
    total = patches + metadata + config.depth * (qkv + attention + out)
    for experts, hidden in zip(config.num_experts, config.hidden_dims, strict=True):
        total += N * m * (experts * hidden + hidden + experts) + N * hidden * m  # W_1 .. W_E, V, Wg; W2
    return 2 * total
