"""Similarity search: for every tile, are the tiles nearest to its embedding of its class?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.linear import Standardiser
from training.metrics import Estimate

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NEAREST = 10  # of the precision


@dataclass(frozen=True)
class Retrieval:
    """Quality of the ranking of all other tiles, a mean over the query tiles that have a relevant one."""

    mean_average_precision: Estimate
    precision: Estimate  # share of relevant ones among the `NEAREST`
    chance: float  # mean share of relevant tiles: what a random order gives


def evaluate(
    features: FloatArray,
    truth: BoolArray,
    places: NDArray[np.generic],
    weights: FloatArray,
    *,
    standardise: bool,
) -> Retrieval:
    """Rank the tiles of all other places by cosine similarity.

    A tile is relevant if it shares a label with the query. Tiles of the query's own place are no candidates:
    neighbours look alike whatever the embedding.

    Args:
        features: (N, D).
        truth: (N, C) labels.
        places: (N,).
        weights: (B, N) of the queries, from `metrics.resamples`.
        standardise: z-score each value of the embedding first.
    """
    x = Standardiser.of(features)(features) if standardise else features
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    labels = truth.astype(np.float64)
    relevant = labels @ labels.T > 0
    other = places[:, None] != places[None, :]
    average, nearest, share = (np.full(len(x), np.nan) for _ in range(3))
    for i in range(len(x)):
        candidates = np.flatnonzero(other[i])
        hits = relevant[i, candidates]
        if not hits.any():
            continue
        hits = hits[np.argsort(-(x[candidates] @ x[i]), kind="stable")]
        average[i] = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()
        nearest[i] = hits[:NEAREST].mean()
        share[i] = hits.mean()
    known = np.isfinite(average)
    return Retrieval(
        _estimate(average[known], weights[:, known]),
        _estimate(nearest[known], weights[:, known]),
        float(share[known].mean()) if known.any() else float("nan"),
    )


def _estimate(values: FloatArray, weights: FloatArray) -> Estimate:
    if not len(values):
        return Estimate(float("nan"), np.full(len(weights), np.nan))
    total = weights.sum(axis=1)
    samples = np.where(total > 0, weights @ values / np.maximum(total, 1e-12), np.nan)
    return Estimate(float(values.mean()), samples)
