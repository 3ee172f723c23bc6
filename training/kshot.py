"""How many labels are needed: probes fitted on k tiles of every class, over many random draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training import linear, metrics
from training.linear import Standardiser

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Index = NDArray[np.int64]

SHOTS: tuple[int | None, ...] = (1, 2, 5, 10, None)  # None: all that are not held out
HELD_OUT = 0.3  # share of the places that a draw is scored on
# Regularisation is this divided by the number of features, which are standardised: as if a tile's features
# had length 1, whatever their number. With one tile per class there is nothing to tune it on.
C_TIMES_DIM = 10.0


def curves(
    features: dict[str, FloatArray],
    truth: BoolArray,
    places: NDArray[np.generic],
    *,
    multi_label: bool,
    draws: int,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """Scores of every draw, the same tiles for all features, so that they can be compared draw by draw.

    The score is the accuracy for multi-class, and the micro mAP for multi-label.

    Args:
        features: (N, D) by name.
        truth: (N, C).
        places: (N,); the places of a draw's training tiles and of its test tiles are different ones.
        multi_label: the task.
        draws: how many.
        seed: of the draws.

    Returns:
        By feature name and tiles per class (`all` of them): one score per draw.
    """
    score = "micro_map" if multi_label else "accuracy"
    results: dict[str, dict[str, list[float]]] = {n: {str(k or "all"): [] for k in SHOTS} for n in features}
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        names = rng.permutation(np.unique(places))
        held = np.isin(places, names[: max(1, round(HELD_OUT * len(names)))])
        pool, test = np.flatnonzero(~held), np.flatnonzero(held)
        for k in SHOTS:
            rows = pool if k is None else choose(truth, rng.permutation(pool), k)
            for name, x in features.items():
                scale = Standardiser.of(x[rows])
                train, held_out = scale(x[rows]), scale(x[test])
                basis = linear.rotation(train)
                train, held_out = train @ basis, held_out @ basis
                weights = linear.logistic(
                    train, truth[rows], C_TIMES_DIM / x.shape[1], multi_label=multi_label
                )
                p = linear.probabilities(held_out, weights, multi_label=multi_label)
                found = metrics.classification(truth[test], p, multi_label=multi_label)
                results[name][str(k or "all")].append(float(found[score][0]))
    return results


def choose(truth: BoolArray, order: Index, k: int) -> Index:
    """Tiles, taken in the given order, until every class has k of them (or no more are left).

    Rare classes come first: a multi-label tile that is taken for one counts for its other classes too.
    """
    chosen: list[int] = []
    count = np.zeros(truth.shape[1], np.int64)
    for c in np.argsort(truth[order].sum(axis=0), kind="stable"):
        for row in order:
            if count[c] >= k:
                break
            if truth[row, c] and row not in chosen:
                chosen.append(int(row))
                count += truth[row]
    return np.sort(np.array(chosen, np.int64))
