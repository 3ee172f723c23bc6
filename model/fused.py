"""The encoder, algebraically fused for inference: the same function in fewer and larger matrix products.

Five identities, none of which approximates. All of them are folded in float64 and rounded to float32 once.

1. Experts. V and W2 are shared by the experts of a layer, and a token's gates g_e sum to 1. So
   sum_e g_e (W2(silu(W_e x + b_e) * (V x + c)) + b2) = W2((sum_e g_e silu(W_e x + b_e)) * (V x + c)) + b2.
   One product with [W_1 .. W_E; V; Wg] (width E h + h + E), an elementwise mix, one product with W2: no
   routing of tokens, no loop over experts.
2. LayerNorm. With n(x) = (x - mean) / sqrt(var + eps), LN(x) = s * n(x) + t, and so
   W LN(x) + b = (W diag(s)) n(x) + (W t + b): scale and shift go into the next product, in both branches.
3. Attention. Q, K and V are one product. The softmax scale d^-1/2 is folded into Q. Query head i reads group
   i mod G; its columns stand group by group, the heads of one as neighbours, then its K and its V. So a group
   is one piece of a row, its heads' rows stand under one another and are multiplied with its K and V without
   repeating them. The rows of the output projection are ordered likewise. (On CPUs the graph wants the
   heads of a group by column instead, and orders both once more: graph_attention.py.)
4. z-score. W ((dn - mean) / std) + b = (W diag(1 / std)) (dn - mean) + b. The mean is subtracted first: in
   the bias it would be the difference of large numbers, and DN up to 65535 do not fit into half precision.
5. All that is added to a token before the first layer (position, biases, the cls token) is one constant.

Names: B tiles, N tokens, m embedding, H query heads, G groups, R = H / G, d head dimension, E experts,
h hidden dimension of an expert. Weights stand as [in, out], activations are rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import NUM_EXTRA_TOKENS, ModelConfig
from model.layers import Block
from model.moe_mae import Encoder

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """x @ weight + bias."""

    weight: Array  # [in, out]
    bias: Array  # [out]


@dataclass(frozen=True)
class FusedLayer:
    """One block. Its inputs are normalised without scale and shift (`epsilon` as in the block)."""

    experts: int
    hidden: int
    head_dim: int
    epsilon: tuple[float, float]  # of the normalisation before attention, and before the experts
    qkv: Product  # [m, G (R + 2) d]: group by group its query heads, its key and its value
    out: Product  # [m, m]: rows in the same order of heads
    experts_in: Product  # [m, E h + h + E]: W_1 .. W_E, V, Wg
    experts_out: Product  # [h, m]: W2


@dataclass(frozen=True)
class FusedEncoder:
    """Everything the inference graph is made of."""

    config: ModelConfig
    mean: Array  # [C], DN, subtracted before the patch projection
    patches: Array  # [C p p, m], values of a patch in the order band, row, column; scaled by 1 / std
    patch_constant: Array  # [L, m]: position and bias
    metadata: Array  # [8, 5 m]: (sin, cos) of week, hour, lat, lon, block by block; nothing for cls
    metadata_constant: Array  # [5 m]: position and bias; for cls the token itself
    layers: tuple[FusedLayer, ...]


@torch.no_grad()
def fuse(encoder: Encoder) -> FusedEncoder:
    """Fold an encoder's weights. Left out is what only training has: dropout, gate noise, auxiliary loss."""
    cfg = encoder.config
    m, extra = cfg.embed_dim, NUM_EXTRA_TOKENS
    position = _f64(encoder.pos_embed)[0]  # [N, m]
    scaled = _f64(encoder.patch_proj.weight) / _f64(encoder.std).view(1, -1, 1, 1)  # [m, C, p, p]
    patch_bias = _f64(cast(Tensor, encoder.patch_proj.bias))  # a Conv2d may have none; this one has
    metadata = torch.zeros(8, extra, m, dtype=torch.float64)
    constant = position[:extra].clone()
    constant[extra - 1] += _f64(encoder.cls_token)[0, 0]
    projections = (encoder.week_proj, encoder.hour_proj, encoder.lat_proj, encoder.lon_proj)
    for i, projection in enumerate(projections):
        metadata[2 * i : 2 * i + 2, i] = _f64(projection.weight).T
        constant[i] += _f64(projection.bias)
    return FusedEncoder(
        config=cfg,
        mean=_f32(encoder.mean.flatten()),
        patches=_f32(scaled.flatten(1).T),
        patch_constant=_f32(position[extra:] + patch_bias),
        metadata=_f32(metadata.flatten(1)),
        metadata_constant=_f32(constant.flatten()),
        layers=tuple(_fuse_layer(cast(Block, layer)) for layer in encoder.layers),
    )


def _fuse_layer(block: Block) -> FusedLayer:
    attn, gate, experts = block.attn, block.gate, block.experts
    H, G, d = attn.heads, attn.groups, attn.head_dim
    # Head g + r G is the r-th head of group g: [R, G] → [G, R].
    order = torch.arange(H).view(H // G, G).T.flatten()
    rows = (order[:, None] * d + torch.arange(d)).flatten()  # of the query projection, in the new order
    scale = d**-0.5
    weight, bias = (
        _by_group(_f64(q)[rows] * scale, _f64(k), _f64(v), G)
        for q, k, v in (
            (attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight),
            (attn.q_proj.bias, attn.k_proj.bias, attn.v_proj.bias),
        )
    )
    return FusedLayer(
        experts=experts.experts,
        hidden=experts.hidden,
        head_dim=d,
        epsilon=(block.norm1.eps, block.norm2.eps),
        qkv=_after_norm(block.norm1, (weight, bias)),
        out=Product(_f32(_f64(attn.out_proj.weight)[:, rows].T), _f32(attn.out_proj.bias)),
        experts_in=_after_norm(
            block.norm2,
            (_f64(experts.W.weight), _f64(experts.W.bias)),
            (_f64(experts.V.weight), _f64(experts.V.bias)),
            (_f64(gate.Wg.weight), _f64(gate.Wg.bias)),
        ),
        experts_out=Product(_f32(_f64(experts.W2.weight).T), _f32(experts.W2.bias)),
    )


def _by_group(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    """Rows of Q (ordered by group), K and V, group by group."""
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (q, k, v)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _after_norm(norm: torch.nn.LayerNorm, *linears: tuple[Tensor, Tensor]) -> Product:
    """Linear maps (weight [out, in], bias) of LN(x), side by side, as one product of n(x): identity 2."""
    weight = torch.cat([w for w, _ in linears])  # [out, in]
    bias = torch.cat([b for _, b in linears])
    scale, shift = _f64(norm.weight), _f64(norm.bias)
    return Product(_f32((weight * scale).T), _f32(weight @ shift + bias))


def _f64(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def _f32(x: Tensor) -> Array:
    return np.ascontiguousarray(x.detach().to("cpu", torch.float32).numpy())
