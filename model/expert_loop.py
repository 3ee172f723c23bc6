"""The network as published: route tokens, run each expert on its own, scatter the results back.

What the dense form in `model.layers.SharedSwiGLUExperts` replaces, kept to check and to measure it against.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers import SharedSwiGLUExperts
from model.moe_mae import MoEMAE


class LoopedExperts(nn.Module):
    """The same experts with the same weights, one after the other on the tokens that chose them."""

    def __init__(self, experts: SharedSwiGLUExperts) -> None:
        super().__init__()
        self.fused = experts  # shares every parameter

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[B, N, m] and gates [B, N, E] → [B, N, m]."""
        fused = self.fused
        tokens, weights = x.flatten(0, 1), gates.flatten(0, 1)  # [T, m], [T, E]
        out = torch.zeros_like(tokens)
        parts = zip(fused.W.weight.chunk(fused.experts), fused.W.bias.chunk(fused.experts), strict=True)
        for e, (weight, bias) in enumerate(parts):
            chosen = weights[:, e].nonzero().squeeze(1)  # [t]
            if not len(chosen):
                continue
            mine = tokens[chosen]
            hidden = F.silu(F.linear(mine, weight, bias)) * fused.V(mine)
            result = fused.dropout(fused.W2(hidden)) * weights[chosen, e : e + 1]
            out.index_add_(0, chosen, result.to(out.dtype))
        return out.view_as(x)


def with_looped_experts(model: MoEMAE) -> MoEMAE:
    """Replace the experts of every layer, in place; the parameters stay the same tensors."""
    for block in [*model.encoder.layers, *model.decoder_layers]:
        block.experts = LoopedExperts(block.experts)
    return model
