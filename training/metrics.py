"""Scores of classifiers and regressions, each for many weightings of the tiles at once.

A bootstrap resamples places; a resample is nothing but a weight (how often it was drawn) for every tile. So
every function takes weights (B, N) and returns B scores; without weights it returns one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MIN_POSITIVES = 5  # a class with fewer tiles gets no score: one tile more or less would move it by a fifth
RESAMPLES = 1000
LEVEL = 0.95  # of the intervals


def supported(truth: BoolArray) -> BoolArray:
    """Which classes of (N, C) labels have enough positives, and negatives, to be scored."""
    positives = truth.sum(axis=0)
    result: BoolArray = (positives >= MIN_POSITIVES) & (len(truth) - positives >= 1)
    return result


def average_precision(truth: BoolArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Area under the precision-recall curve as a step function (scikit-learn's definition), ties together.

    Args:
        truth: (N,).
        scores: (N,), higher is more likely.
        weights: (B, N); ones without it.

    Returns:
        (B,), NaN where no positive has weight.
    """
    w = np.ones((1, len(truth))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)  # the last of every group of ties
    found = np.cumsum(w[:, order] * truth[order], axis=1)[:, ends]
    seen = np.cumsum(w[:, order], axis=1)[:, ends]
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    total = found[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        result: FloatArray = (np.diff(found, axis=1, prepend=0.0) * precision).sum(axis=1) / total
    return result


def f1(truth: BoolArray, predicted: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """Harmonic mean of precision and recall of (N,) decisions → (B,); NaN without any positive."""
    w = np.ones((1, len(truth))) if weights is None else weights
    both, either = w @ (truth & predicted), w @ truth.astype(float) + w @ predicted.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: FloatArray = 2 * both / either
    return result


def classification(
    truth: BoolArray,
    probabilities: FloatArray,
    *,
    multi_label: bool,
    threshold: float | FloatArray = 0.5,
    weights: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """All scores of a classifier.

    Micro scores run over all decisions (tile, class); macro scores are means over the supported classes.

    Args:
        truth: (N, C), one label a row unless `multi_label`.
        probabilities: (N, C).
        multi_label: decide by threshold; else by the most probable class.
        threshold: for all, or (N,) for each tile.
        weights: (B, N).

    Returns:
        `micro_map`, `macro_map`, `micro_f1`, `macro_f1` and, for multi-class, `accuracy`; (B,) each.
    """
    classes = truth.shape[1]
    if multi_label:
        predicted = probabilities >= np.broadcast_to(np.asarray(threshold), len(truth))[:, None]
    else:
        predicted = np.eye(classes, dtype=bool)[probabilities.argmax(axis=1)]
    repeated = None if weights is None else np.repeat(weights, classes, axis=1)
    use = np.flatnonzero(supported(truth))
    each_ap = [average_precision(truth[:, c], probabilities[:, c], weights) for c in use]
    each_f1 = [f1(truth[:, c], predicted[:, c], weights) for c in use]
    scores = {
        "micro_map": average_precision(truth.ravel(), probabilities.ravel(), repeated),
        "macro_map": _mean(each_ap),
        "micro_f1": f1(truth.ravel(), predicted.ravel(), repeated),
        "macro_f1": _mean(each_f1),
    }
    if not multi_label:
        w = np.ones((1, len(truth))) if weights is None else weights
        scores["accuracy"] = w @ (truth & predicted).any(axis=1) / w.sum(axis=1)
    return scores


def r2(truth: FloatArray, predicted: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Share of the variance explained, (N,) → (B,); NaN where the truth does not vary."""
    w = np.ones((1, len(truth))) if weights is None else weights
    mean = (w @ truth) / w.sum(axis=1)
    residual = w @ (truth - predicted) ** 2
    total = w @ truth**2 - w.sum(axis=1) * mean**2
    return np.where(total > 1e-12, 1 - residual / np.maximum(total, 1e-12), np.nan)


def log_loss(truth: BoolArray, probabilities: FloatArray, *, multi_label: bool) -> float:
    """Mean negative log-likelihood: per tile for multi-class, per decision for multi-label."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    if multi_label:
        return float(-np.where(truth, np.log(p), np.log1p(-p)).mean())
    return float(-np.log(p[truth]).mean())


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; `samples` are its bootstrap values, for paired differences."""

    value: float
    samples: FloatArray

    @property
    def interval(self) -> tuple[float, float]:
        """Percentile interval at `LEVEL`; NaN without samples."""
        known = self.samples[np.isfinite(self.samples)]
        if not len(known):
            return float("nan"), float("nan")
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference: both must come from the same resamples."""
        return Estimate(self.value - other.value, self.samples - other.samples)

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready value and interval; None for what is not known."""
        low, high = self.interval
        known = {"value": self.value, "low": low, "high": high}
        return {name: float(v) if np.isfinite(v) else None for name, v in known.items()}


def resamples(groups: NDArray[np.generic], count: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """Bootstrap weights (count, N): whole groups (places) drawn with replacement, as many as there are."""
    _, index = np.unique(groups, return_inverse=True)
    number = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=count)
    result: FloatArray = drawn[:, index].astype(np.float64)
    return result


def averaged(runs: Sequence[Mapping[str, tuple[FloatArray, FloatArray]]]) -> dict[str, Estimate]:
    """Mean over repeated cross-validations; each run has (value (1,), samples (B,)) per score."""
    return {
        name: Estimate(
            float(np.mean([run[name][0][0] for run in runs])), np.mean([run[name][1] for run in runs], axis=0)
        )
        for name in runs[0]
    }


def _mean(values: list[FloatArray]) -> FloatArray:
    """Mean over classes; classes whose positives were not drawn are left out of a resample."""
    if not values:
        return np.full(1, np.nan)
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
