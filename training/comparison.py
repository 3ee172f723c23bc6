"""One labelled task: probes, retrieval and few labels, for all features on the same folds and resamples."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from training import kshot, linear, metrics, retrieval
from training.features import BAND_STATISTICS, ENCODER, PLACE_AND_TIME, UNTRAINED, Features
from training.metrics import Estimate
from training.tasks import Task

FloatArray = NDArray[np.float64]


def compare(
    task: Task,
    described: list[Features],
    progress: Progress,
    *,
    count: int,
    repeats: int,
    published_repeats: int,
    resamples: int,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Everything that is measured on a task; JSON-ready.

    Args:
        task: N labelled tiles.
        described: the features of the same tiles.
        progress: gets a bar for each part.
        count: of folds.
        repeats: of the cross-validation of tuned probes, each with other folds.
        published_repeats: likewise by the published protocol.
        resamples: of the bootstrap over places.
        draws: of the k-shot curves.
        seed: of all of them.
    """
    weights = metrics.resamples(task.places, resamples, seed)
    rows: list[tuple[Features, str, dict[str, Estimate]]] = []
    jobs = [(f, p) for f in described for p in ("tuned", "published") if p == "tuned" or f.published]
    for f, protocol in progress.track(jobs, description=f"{task.name}: probes"):
        times = repeats if protocol == "tuned" else published_repeats
        runs = [_cross_validated(task, f.values, protocol, weights, count, seed + r) for r in range(times)]
        rows.append((f, protocol, metrics.averaged(runs)))
    searches = []
    for f in progress.track(described, description=f"{task.name}: retrieval"):
        for standardise in (False, True):
            r = retrieval.evaluate(f.values, task.truth, task.places, weights, standardise=standardise)
            scores = {"map": r.mean_average_precision, "precision_at_10": r.precision}
            searches.append((f, "standardised" if standardise else "raw", scores, r.chance))
    return {
        "source": task.source,
        "kind": "multi-label" if task.multi_label else "multi-class",
        "tiles": len(task.tiles),
        "places": len(np.unique(task.places)),
        "classes": task.support,
        "folds": count,
        "probes": with_differences(rows),
        "retrieval": {
            "chance": searches[0][3] if np.isfinite(searches[0][3]) else None,
            "rows": with_differences([(f, p, s) for f, p, s, _ in searches]),
        },
        "k_shot": _k_shot(task, described, draws, seed, progress),
    }


def _cross_validated(
    task: Task, x: FloatArray, protocol: str, weights: FloatArray, count: int, seed: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Scores and their resamples from predictions of every tile by probes that never saw its place."""
    folds = linear.place_folds(task.places, count, seed)
    predicted = np.zeros(task.truth.shape)
    thresholds = np.full(len(x), 0.5)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if protocol == "published":
            predicted[test] = linear.published(
                x[train], task.truth[train], x[test], multi_label=task.multi_label
            )
            continue
        fitted = linear.tuned(
            x[train], task.truth[train], task.places[train], multi_label=task.multi_label, seed=seed
        )
        predicted[test] = fitted.probabilities(x[test])
        thresholds[test] = fitted.threshold
    score = partial(
        metrics.classification, task.truth, predicted, multi_label=task.multi_label, threshold=thresholds
    )
    values, samples = score(), score(weights=weights)
    return {name: (values[name], samples[name]) for name in values}


def with_differences(rows: list[tuple[Features, str, dict[str, Estimate]]]) -> list[dict[str, Any]]:
    """Rows of a table; the encoder's have its paired differences to the baselines by the same protocol.

    The untrained encoder is compared in the same pooling and with metadata on if the encoder's are.
    """
    by_name = {(f.source, f.pooling, f.metadata, protocol): s for f, protocol, s in rows}
    table = []
    for f, protocol, scores in rows:
        row: dict[str, Any] = {
            **f.name,
            "protocol": protocol,
            "dim": f.values.shape[1],
            "scores": {name: e.to_dict() for name, e in scores.items()},
        }
        if f.source == ENCODER:
            baselines = {
                BAND_STATISTICS: (BAND_STATISTICS, "", "off", protocol),
                PLACE_AND_TIME: (PLACE_AND_TIME, "", "on", protocol),
                UNTRAINED: (UNTRAINED, f.pooling, "off" if f.metadata == "off" else "on", protocol),
                "metadata off": (ENCODER, f.pooling, "off", protocol),
                "metadata shuffled": (ENCODER, f.pooling, "shuffled", protocol),
            }
            row["minus"] = {
                name: {score: e.minus(by_name[key][score]).to_dict() for score, e in scores.items()}
                for name, key in baselines.items()
                if key in by_name and key != (f.source, f.pooling, f.metadata, protocol)
            }
        table.append(row)
    return table


def _k_shot(
    task: Task, described: list[Features], draws: int, seed: int, progress: Progress
) -> dict[str, Any]:
    enough = metrics.supported(task.truth)
    score = "micro_map" if task.multi_label else "accuracy"
    if enough.sum() < 2:  # nothing to tell apart
        return {"score": score, "draws": 0, "held_out_places": kshot.HELD_OUT, "curves": {}}
    chosen = {
        " ".join(filter(None, (f.source, f.pooling))): f.values
        for f in described
        if (
            f.source in (ENCODER, UNTRAINED)
            and f.pooling in ("mean", "patch_mean_std")
            and f.metadata == "on"
        )
        or f.source == BAND_STATISTICS
    }
    bar = progress.add_task(f"{task.name}: k-shot", total=1)
    rows = task.truth[:, enough].any(axis=1)
    curves = kshot.curves(
        {name: x[rows] for name, x in chosen.items()},
        task.truth[rows][:, enough],
        task.places[rows],
        multi_label=task.multi_label,
        draws=draws,
        seed=seed,
    )
    progress.advance(bar)
    return {
        "score": score,
        "draws": draws,
        "held_out_places": kshot.HELD_OUT,
        "curves": {
            name: {k: _over_draws(np.array(v)) for k, v in curve.items()} for name, curve in curves.items()
        },
    }


def _over_draws(values: FloatArray) -> dict[str, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"mean": float(np.nanmean(values)), "low": float(low), "high": float(high)}
