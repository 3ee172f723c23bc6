"""The fused encoder as a PyTorch module: what the ONNX graph computes, on GPUs that have no ONNX Runtime.

It has the same islands of fp32 as the half-precision graph (graph.py), so that what is measured of one says
what to expect of the other. The mix of experts is a function, plain or a kernel (gate_mix.py).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NUM_EXTRA_TOKENS, NUM_METADATA_TOKENS
from model.fused import Array, FusedEncoder, FusedLayer, Product
from model.gate_mix import Mix, mix


class FusedNetwork(nn.Module):
    """A fused encoder.

    Args:
        fused: the weights; padded ones for half precision.
        dtype: of products and attention; the rest is fp32.
        mixing: of the experts.
    """

    mean: Tensor
    scale: Tensor
    patches: Tensor
    patch_constant: Tensor

    def __init__(self, fused: FusedEncoder, dtype: torch.dtype = torch.float32, mixing: Mix = mix) -> None:
        super().__init__()
        self.config, self.dtype = fused.config, dtype
        # Powers of two change places between weights and values, as in the half-precision graph.
        largest = np.abs(fused.patches).max(axis=1).clip(np.finfo(np.float32).tiny)
        size = np.exp2(np.floor(np.log2(largest)))
        self._keep("mean", fused.mean.reshape(1, -1, 1, 1, 1, 1), torch.float32)
        self._keep("scale", size, torch.float32)
        self._keep("patches", fused.patches / size[:, None], dtype)
        self._keep("patch_constant", fused.patch_constant, torch.float32)
        self.metadata = _Dense(Product(fused.metadata, fused.metadata_constant), torch.float32)
        self.layers = nn.ModuleList(_Layer(fused, layer, dtype, mixing) for layer in fused.layers)

    def forward(self, dn: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles uint16 [B, C, S, S] and encodings [B, 4, 2] to mean [B, m] and tokens [B, N, m], fp32."""
        cfg = self.config
        B, C, s, p, m = dn.shape[0], cfg.in_channels, cfg.grid, cfg.patch_size, cfg.embed_dim
        values = dn.view(B, C, s, p, s, p).float() - self.mean
        rows = values.permute(0, 2, 4, 1, 3, 5).reshape(-1, C * p * p) * self.scale  # [B L, C p p]
        patches = (rows.to(self.dtype) @ self.patches).float().view(B, -1, m) + self.patch_constant
        flat = metadata.reshape(B, 2 * NUM_METADATA_TOKENS)
        extra = self.metadata(flat).view(B, NUM_EXTRA_TOKENS, m)
        x = torch.cat([extra, patches], dim=1).view(-1, m)  # [B N, m]
        for layer in self.layers:
            x = layer(x)
        tokens = x.view(B, cfg.num_tokens, m)
        return tokens.mean(dim=1), tokens

    def _keep(self, name: str, value: Array, dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).to(dtype))


class _Layer(nn.Module):
    def __init__(self, fused: FusedEncoder, layer: FusedLayer, dtype: torch.dtype, mixing: Mix) -> None:
        super().__init__()
        cfg = fused.config
        self.tokens, self.heads, self.groups, self.top_k = (
            cfg.num_tokens, cfg.num_heads, cfg.num_groups, cfg.top_k,
        )  # fmt: skip
        self.head_dim, self.epsilon, self.dtype, self.mixing = layer.head_dim, layer.epsilon, dtype, mixing
        weight, bias, E = layer.experts_in.weight, layer.experts_in.bias, layer.experts
        self.qkv, self.out = _Dense(layer.qkv, dtype), _Dense(layer.out, dtype)
        self.wide = _Dense(Product(weight[:, :-E], bias[:-E]), dtype)
        self.gate = _Dense(Product(weight[:, -E:], bias[-E:]), torch.float32)
        self.down = _Dense(layer.experts_out, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B N, m] → [B N, m], fp32."""
        y = F.layer_norm(x, x.shape[-1:], eps=self.epsilon[0]).to(self.dtype)
        x = x + self._attention(y).float()
        y = F.layer_norm(x, x.shape[-1:], eps=self.epsilon[1])
        logits = self.gate(y)  # fp32: an error is another expert
        mixed = self.mixing(self.wide(y.to(self.dtype)), logits, self.top_k)
        result: Tensor = x + self.down(mixed).float()
        return result

    def _attention(self, y: Tensor) -> Tensor:
        N, H, G, d = self.tokens, self.heads, self.groups, self.head_dim
        groups = self.qkv(y).view(-1, N, G, H // G + 2, d).permute(0, 2, 3, 1, 4)  # [B, G, R + 2, N, d]
        q = groups[:, :, :-2].reshape(-1, H, N, d)
        k, v = groups[:, :, -2], groups[:, :, -1]  # [B, G, N, d]
        # The heads of a group are neighbours, as PyTorch expects them; d^-1/2 is in Q already.
        if self.dtype == torch.float32:  # no fused kernel takes groups in fp32: their heads one under another
            q = q.view(-1, G, H // G * N, d)
            values = F.scaled_dot_product_attention(q, k, v, scale=1.0).view(-1, H, N, d)
        else:
            values = F.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True)
        result: Tensor = self.out(values.transpose(1, 2).reshape(-1, H * d))
        return result


class _Dense(nn.Module):
    """x @ weight + bias, with the weight as [in, out]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, product: Product, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.ascontiguousarray(product.weight)).to(dtype))
        self.register_buffer("bias", torch.from_numpy(np.ascontiguousarray(product.bias)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """[T, in] → [T, out]."""
        return torch.addmm(self.bias, x, self.weight)
