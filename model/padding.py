"""Zero-padding of a fused encoder to the sizes that tensor cores take whole. Exact: zeros add nothing.

A hidden column of zeros gives silu(0) = 0 times V's 0, and meets a row of zeros in W2. A head's columns of
zeros add nothing to q . k, and give values of zero that meet rows of zeros in the output projection; the
softmax scale stays that of the true head dimension, since it is folded into Q.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.fused import Array, FusedEncoder, FusedLayer, Product

HIDDEN_MULTIPLE = 16  # the depth of a half-precision tensor-core instruction
HEAD_MULTIPLE = 8  # 16 bytes of half precision: what a row must be aligned to for these kernels to be taken


def padded(
    fused: FusedEncoder, hidden_multiple: int = HIDDEN_MULTIPLE, head_multiple: int = HEAD_MULTIPLE
) -> FusedEncoder:
    """The same function, experts' hidden and attention's head dimension rounded up to multiples."""
    cfg = fused.config
    heads, groups = cfg.num_heads, cfg.num_groups
    return replace(
        fused,
        layers=tuple(
            _padded_layer(layer, heads, groups, hidden_multiple, head_multiple) for layer in fused.layers
        ),
    )


def _padded_layer(layer: FusedLayer, heads: int, groups: int, hidden: int, head: int) -> FusedLayer:
    E, h, d = layer.experts, layer.hidden, layer.head_dim
    hidden_to, head_to = -(-h // hidden) * hidden, -(-d // head) * head
    wide = (E + 1) * h  # W_1 .. W_E and V, before the gate's logits
    experts = [
        _columns(side[..., :wide], E + 1, h, hidden_to)
        for side in (layer.experts_in.weight, layer.experts_in.bias)
    ]
    gates = layer.experts_in.weight[:, wide:], layer.experts_in.bias[wide:]
    blocks = heads + 2 * groups
    return replace(
        layer,
        hidden=hidden_to,
        head_dim=head_to,
        qkv=Product(*(_columns(side, blocks, d, head_to) for side in (layer.qkv.weight, layer.qkv.bias))),
        out=Product(_columns(layer.out.weight.T, heads, d, head_to).T.copy(), layer.out.bias),
        experts_in=Product(
            np.concatenate([experts[0], gates[0]], axis=-1), np.concatenate([experts[1], gates[1]])
        ),
        experts_out=Product(
            _columns(layer.experts_out.weight.T, 1, h, hidden_to).T.copy(), layer.experts_out.bias
        ),
    )


def _columns(x: Array, blocks: int, width: int, wanted: int) -> Array:
    """[..., blocks * width] → [..., blocks * wanted], zeros at the end of every block."""
    cut = x.reshape(*x.shape[:-1], blocks, width)
    filled = np.pad(cut, [(0, 0)] * (cut.ndim - 1) + [(0, wanted - width)])
    return np.ascontiguousarray(filled.reshape(*x.shape[:-1], blocks * wanted))
