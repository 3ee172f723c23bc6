"""The metadata-aware mixture-of-experts masked autoencoder (arXiv 2509.10919).

Shapes: B tiles, C bands, S pixels a side, L patches, N tokens = 5 + L, K visible patches, m embedding.
Token order: week, hour, latitude, longitude, cls, patches row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import CLS_TOKEN, NUM_EXTRA_TOKENS, ModelConfig, Preprocessing
from model.kriging import kriged
from model.layers import Block
from model.outputs import Pooling
from model.targets import Frame, Targets, visible_frame

MASK_RATIO = 0.75
TOKEN_STD = 0.02  # initial standard deviation of positions, cls and mask token


class Encoded(NamedTuple):
    """What the encoder makes of a batch."""

    tokens: Tensor  # [B, N, m] before the final LayerNorm: the embedding
    normalised: Tensor  # [B, N, m] after it: what the decoder reads
    auxiliary_loss: Tensor  # scalar, summed over the layers
    gates: list[Tensor]  # a layer: [B, N, E]


class Encoder(nn.Module):
    """Raw DN and metadata encodings to tokens. The z-score is part of the network.

    Raises:
        ValueError: statistics of another number of bands than the network takes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        statistics = preprocessing or Preprocessing()
        if len(statistics.mean) != config.in_channels:
            raise ValueError(
                f"statistics of {len(statistics.mean)} bands for {config.in_channels} input bands"
            )
        dim = config.embed_dim
        self.config = config
        self.patch_proj = nn.Conv2d(config.in_channels, dim, config.patch_size, stride=config.patch_size)
        self.week_proj = nn.Linear(2, dim)
        self.hour_proj = nn.Linear(2, dim)
        self.lat_proj = nn.Linear(2, dim)
        self.lon_proj = nn.Linear(2, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * TOKEN_STD)
        self.pos_embed = nn.Parameter(torch.randn(1, config.num_tokens, dim) * TOKEN_STD)
        self.layers = nn.ModuleList(
            Block(dim, config.num_heads, config.num_groups, hidden, experts, config.top_k, config.dropout)
            for hidden, experts in zip(config.hidden_dims, config.num_experts, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        # Stored once, in the checkpoint's preprocessing record, not among the weights.
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, -1, 1, 1), persistent=False)

    def standardise(self, dn: Tensor) -> Tensor:
        """Raw DN [B, C, S, S] of any dtype → z-scores, float32."""
        return (dn.to(torch.float32) - self.mean) / self.std

    def forward(self, z: Tensor, metadata: Tensor, visible: Tensor | None = None) -> Encoded:
        """Encode standardised tiles.

        Args:
            z: [B, C, S, S] from `standardise`.
            metadata: [B, 4, 2], (week, hour, lat, lon) x (sin, cos); zeros where unknown.
            visible: [B, K] int64 indices of the patches to see; all of them without it.

        Raises:
            ValueError: tiles or metadata of another shape.
        """
        cfg = self.config
        if z.shape[1:] != (cfg.in_channels, cfg.image_size, cfg.image_size):
            expected = f"[B, {cfg.in_channels}, {cfg.image_size}, {cfg.image_size}]"
            raise ValueError(f"tiles of shape {list(z.shape)}, expected {expected}")
        if metadata.shape != (len(z), 4, 2):
            raise ValueError(f"metadata of shape {list(metadata.shape)}, expected [{len(z)}, 4, 2]")
        patches = self.patch_proj(z).flatten(2).transpose(1, 2)  # [B, L, m]
        patches = patches + self.pos_embed[:, NUM_EXTRA_TOKENS:]
        if visible is not None:
            patches = take(patches, visible)  # [B, K, m]
        projections = (self.week_proj, self.hour_proj, self.lat_proj, self.lon_proj)
        extra = [p(metadata[:, i]) for i, p in enumerate(projections)] + [
            self.cls_token[:, 0].expand(z.shape[0], -1)  # len() would be a constant in an export
        ]
        x = torch.cat([torch.stack(extra, dim=1) + self.pos_embed[:, :NUM_EXTRA_TOKENS], patches], dim=1)
        auxiliary = x.new_zeros(())
        gates = []
        for layer in self.layers:
            x, routing = layer(x)
            auxiliary = auxiliary + routing.auxiliary_loss
            gates.append(routing.gates)
        return Encoded(x, self.norm(x), auxiliary, gates)


def pooled(tokens: Tensor, pooling: Pooling) -> Tensor:
    """Tokens [B, N, m] before the final LayerNorm → the embedding, of the shape that `outputs.shapes` has."""
    patches = tokens[:, NUM_EXTRA_TOKENS:]
    if pooling == "mean":
        return tokens.mean(1)
    if pooling == "cls":
        return tokens[:, CLS_TOKEN]
    if pooling == "patch_mean":
        return patches.mean(1)
    if pooling == "patch_mean_std":
        return torch.cat([patches.mean(1), patches.std(1, unbiased=False)], dim=1)
    return tokens


class Reconstruction(NamedTuple):
    """What the autoencoder made of masked tiles."""

    predicted: Tensor  # [B, L, C * p * p] z-scores; order inside a patch: band, row, column
    target: Tensor  # likewise
    mask: Tensor  # [B, L] 1 = masked, 0 = visible
    auxiliary_loss: Tensor  # scalar, of the encoder's layers
    encoded: Encoded  # of the visible patches
    frame: Frame | None = None  # what the decoder predicted relative to; None = absolute z-scores


class MoEMAE(nn.Module):
    """Encoder, and the small decoder that pretraining needs."""

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: Preprocessing | None = None,
        targets: Targets = "absolute",
    ) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.config = config
        self.targets: Targets = targets
        self.encoder = Encoder(config, preprocessing)
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * TOKEN_STD)
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, config.num_patches, dim) * TOKEN_STD)
        self.decoder_layers = nn.ModuleList(
            Block(
                dim,
                config.decoder_heads,
                config.decoder_groups,
                config.decoder_hidden,
                config.decoder_experts,
                config.top_k,
                config.dropout,
            )
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred = nn.Linear(dim, config.patch_values)

    def patchify(self, z: Tensor) -> Tensor:
        """[B, C, S, S] → [B, L, C * p * p], values in the order of `torch.nn.functional.unfold`."""
        p = self.config.patch_size
        return F.unfold(z, p, stride=p).transpose(1, 2)

    def forward(
        self,
        dn: Tensor,
        metadata: Tensor,
        noise: Tensor | None = None,
        mask_ratio: float = MASK_RATIO,
        valid: Tensor | None = None,
    ) -> Reconstruction:
        """Mask, encode what is left, and predict everything, in z-scores whatever the decoder's targets are.

        Args:
            dn: raw DN [B, C, S, S], any dtype.
            metadata: [B, 4, 2].
            noise: [B, L]; the patches with the smallest values stay visible. Drawn uniformly without it.
            mask_ratio: share of the patches that is hidden, in [0, 1).
            valid: [B, S, S] bool, pixels that hold a measurement; all without it. Matters to targets relative
                to the visible patches alone.
        """
        z = self.encoder.standardise(dn)
        B, L = len(z), self.config.num_patches
        if noise is None:
            noise = torch.rand(B, L, device=z.device)
        order = noise.argsort(dim=1)
        visible = order[:, : patches_kept(L, mask_ratio)]  # [B, K]
        mask = torch.ones(B, L, device=z.device).scatter(1, visible, 0.0)
        encoded = self.encoder(z, metadata, visible)
        predicted, target, frame = self.decode(encoded.normalised, visible), self.patchify(z), None
        if self.targets != "absolute":
            seen = (mask == 0).unsqueeze(-1).expand(-1, -1, self.config.patch_size**2)  # [B, L, p * p]
            if valid is not None:
                seen = seen & self.patchify(valid.unsqueeze(1).float()).bool()
            frame = visible_frame(target, seen, self.config.in_channels)
            if self.targets == "kriged":
                frame = frame._replace(mean=kriged(target, seen, visible, self.config.in_channels))
            predicted = frame.absolute(predicted)
        return Reconstruction(predicted, target, mask, encoded.auxiliary_loss, encoded, frame)

    def decode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Normalised tokens [B, 5 + K, m] of the `visible` patches [B, K] → targets [B, L, C * p * p]."""
        x = self.decoder_embed(tokens)
        extra, seen = x[:, :NUM_EXTRA_TOKENS], x[:, NUM_EXTRA_TOKENS:]
        dim = seen.shape[-1]
        hidden = self.mask_token.to(seen.dtype).expand(len(x), self.config.num_patches, dim)
        patches = hidden.scatter(1, visible.unsqueeze(-1).expand(-1, -1, dim), seen) + self.decoder_pos_embed
        x = torch.cat([extra, patches], dim=1)  # only patches have a position here
        for layer in self.decoder_layers:
            x, _ = layer(x)
        out: Tensor = self.decoder_pred(self.decoder_norm(x[:, NUM_EXTRA_TOKENS:]))
        return out


def patches_kept(patches: int, mask_ratio: float) -> int:
    """How many patches stay visible; without the error of 1 - 0.8, for which 100 * (1 - 0.8) is below 20."""
    return int(round(patches * (1 - mask_ratio), 6))


def take(patches: Tensor, index: Tensor) -> Tensor:
    """[B, L, m] and [B, K] → the K patches of each tile, [B, K, m]."""
    return patches.gather(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
