"""Frozen embeddings of tiles, and the features that a trivial baseline would use instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from model.moe_mae import Encoder, pooled
from model.outputs import POOLINGS, Pooling
from training.heldout import Tiles

Metadata = Literal["on", "off", "shuffled"]
METADATA: tuple[Metadata, ...] = get_args(Metadata)
BATCH = 16  # tiles; larger batches are no faster on a CPU

FloatArray = NDArray[np.float32]
Advance = Callable[[int], None]


def embed(
    encoder: Encoder,
    dn: NDArray[np.uint16],
    encodings: NDArray[np.float32],
    poolings: tuple[Pooling, ...] = POOLINGS,
    advance: Advance | None = None,
) -> dict[Pooling, FloatArray]:
    """Embeddings of filled tiles (N, 7, S, S) with their encodings (N, 4, 2): (N, dim) for every pooling.

    Those of `tokens` are flattened row by row.
    """
    device = next(encoder.parameters()).device
    parts: dict[Pooling, list[FloatArray]] = {p: [] for p in poolings}
    with torch.inference_mode():
        for start in range(0, len(dn), BATCH):
            x = torch.from_numpy(dn[start : start + BATCH]).to(device)
            m = torch.from_numpy(encodings[start : start + BATCH]).to(device)
            tokens = encoder(encoder.standardise(x), m).tokens
            for p in poolings:
                parts[p].append(pooled(tokens, p).flatten(1).float().cpu().numpy())
            if advance is not None:
                advance(len(x))
    return {p: np.concatenate(found) for p, found in parts.items()}


def with_metadata(tiles: Tiles, metadata: Metadata, seed: int = 0) -> NDArray[np.float32]:
    """Encodings (N, 4, 2) as they are, all zeros, or exchanged between tiles of different places."""
    encodings: NDArray[np.float32] = tiles["encodings"]
    if metadata == "on":
        return encodings
    if metadata == "off":
        return np.zeros_like(encodings)
    return encodings[exchanged(tiles["place"], seed)]


def exchanged(places: NDArray[np.generic], seed: int = 0) -> NDArray[np.int64]:
    """A partner (N,) for every tile, from another place where there is one; each is a partner once."""
    shuffled = np.random.default_rng(seed).permutation(len(places))
    by_place = shuffled[np.argsort(places[shuffled], kind="stable")]
    # Going round by the size of the largest place leads out of every place, if none holds half of the tiles.
    step = int(np.unique(places, return_counts=True)[1].max()) if len(places) else 0
    partner = np.empty(len(places), np.int64)
    partner[by_place] = np.roll(by_place, step)
    return partner


def band_statistics(dn: NDArray[np.uint16], mean: tuple[float, ...], std: tuple[float, ...]) -> FloatArray:
    """Mean, standard deviation, minimum and maximum of each band of z-scored tiles: (N, 4 * bands).

    Without any network: what an embedding has to be better than.
    """
    centre, spread = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
    z = (dn.astype(np.float32) - centre) / spread
    axes = (2, 3)
    parts = [z.mean(axes), z.std(axes), z.min(axes), z.max(axes)]
    return np.concatenate(parts, axis=1).astype(np.float32)
