"""The parts of a transformer block: grouped-query attention, noisy top-k gate, experts.

Shapes: B tiles, N tokens, m embedding, H query heads, G key-value groups, d head dimension, E experts,
h hidden dimension of an expert.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CV_WEIGHT = 0.01  # of the importance and of the load term (reference implementation)
CV_EPSILON = 1e-6


class GroupedQueryAttention(nn.Module):
    """Softmax attention in which several query heads share a key-value group.

    Query head i reads group i mod G (not i // (H / G)), as the published network does.
    """

    def __init__(self, dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim = heads, groups, dim // heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, groups * self.head_dim)
        self.v_proj = nn.Linear(dim, groups * self.head_dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, m] → [B, N, m]."""
        B, N, _ = x.shape
        repeats = (1, self.heads // self.groups, 1, 1)
        q = self.q_proj(x).view(B, N, self.heads, self.head_dim).transpose(1, 2)  # [B, H, N, d]
        k = self.k_proj(x).view(B, N, self.groups, self.head_dim).transpose(1, 2).repeat(repeats)
        v = self.v_proj(x).view(B, N, self.groups, self.head_dim).transpose(1, 2).repeat(repeats)
        y = F.scaled_dot_product_attention(q, k, v)  # scale d^-0.5
        out: Tensor = self.out_proj(y.transpose(1, 2).reshape(B, N, -1))
        return out


class Routing(NamedTuple):
    """What a gate decided for every token."""

    gates: Tensor  # [B, N, E], k non-zero values a token, which sum to 1
    auxiliary_loss: Tensor  # scalar


class NoisyTopKGate(nn.Module):
    """Picks k experts for each token (Shazeer et al. 2017, arXiv 1701.06538, section 3).

    Noise is added to the logits in training only: in evaluation the same tile takes the same path every time.
    """

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.Wg = nn.Linear(dim, experts)
        self.Wnoise = nn.Linear(dim, experts)

    def forward(self, x: Tensor) -> Routing:
        """[B, N, m] → gates [B, N, E] and the auxiliary loss; fp32 whatever the precision around it."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            logits = self.Wg(x)
            scale = F.softplus(self.Wnoise(x))
            noisy = logits + torch.randn_like(logits) * scale if self.training else logits
            top, index = noisy.topk(self.top_k + 1, dim=-1)  # [B, N, k + 1], descending
            best = top[..., : self.top_k].softmax(dim=-1)
            gates = torch.zeros_like(noisy).scatter(-1, index[..., : self.top_k], best)
            return Routing(gates, self._auxiliary_loss(gates, logits, noisy, scale, top))

    def _auxiliary_loss(
        self, gates: Tensor, logits: Tensor, noisy: Tensor, scale: Tensor, top: Tensor
    ) -> Tensor:
        kth, next_one = top[..., -2:-1], top[..., -1:]
        # What an expert's noisy logit has to exceed for the token to be its own (published rule).
        threshold = torch.where(noisy > kth, kth, torch.where(noisy <= next_one, next_one, noisy))
        load = torch.special.ndtr((logits - threshold) / scale).flatten(0, -2).sum(0)  # [E]
        importance = gates.flatten(0, -2).sum(0)  # [E]
        return CV_WEIGHT * (_variation(importance) + _variation(load))


def _variation(x: Tensor) -> Tensor:
    """Coefficient of variation over the experts."""
    return x.std(unbiased=False) / (x.mean() + CV_EPSILON)


class SharedSwiGLUExperts(nn.Module):
    """E experts W2(silu(W_e x + b_e) * (V x + c)), of which only W_e and b_e differ.

    Because V and W2 are shared and a token's gates sum to 1, the weighted sum of the experts is
    W2((sum_e g_e silu(W_e x + b_e)) * (V x + c)): dense, with no routing of tokens and no loop over experts.
    The published code drops out each expert's output on its own; here one mask falls on their weighted sum,
    which has the same expectation.
    """

    def __init__(self, dim: int, hidden: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.experts, self.hidden = experts, hidden
        self.W = nn.Linear(dim, experts * hidden)  # rows of expert 0, then of expert 1, ...
        self.V = nn.Linear(dim, hidden)
        self.W2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[B, N, m] and gates [B, N, E] → [B, N, m]."""
        active = F.silu(self.W(x)).view(*x.shape[:-1], self.experts, self.hidden)  # [B, N, E, h]
        # Elementwise: as one small matrix product per token (einsum) a training step takes a tenth longer.
        mixed = (gates.to(active.dtype).unsqueeze(-1) * active).sum(-2)  # [B, N, h]
        out: Tensor = self.dropout(self.W2(mixed * self.V(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a mixture of experts, each added to the residual."""

    def __init__(
        self, dim: int, heads: int, groups: int, hidden: int, experts: int, top_k: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GroupedQueryAttention(dim, heads, groups)
        self.norm2 = nn.LayerNorm(dim)
        self.gate = NoisyTopKGate(dim, experts, top_k)
        self.experts = SharedSwiGLUExperts(dim, hidden, experts, dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """[B, N, m] → [B, N, m] and how its tokens were routed."""
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        routing = self.gate(y)
        return x + self.experts(y, routing.gates), routing
