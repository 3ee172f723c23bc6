"""Fit the probes that ship: linear classifiers on frozen embeddings, measured by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from model import bundle as bundles
from model import bundle_writer, manifest
from model.bundle import Bundle, BundleError
from model.outputs import POOLINGS, Pooling
from model.probe import LinearProbe, encode, folded, sigmoid, softmax
from training import frozen, linear, metrics, tasks
from training.features import FloatArray
from training.frozen import Frozen
from training.heldout import read
from training.linear import Tuned
from training.metrics import Estimate
from training.shards import PackError
from training.tasks import Task

FOLDS = 5  # of whole places
MAX_TILES = 50_000  # per task; more change a linear probe little
MAX_TOKEN_VALUES = 300_000_000  # embeddings of all tokens are fitted only where they fit in about 2.4 GB
Calibration = tuple[FloatArray, FloatArray]  # scale and shift, (C,) each


@dataclass(frozen=True)
class Validated:
    """A pooling with the out-of-fold predictions of its probes."""

    pooling: Pooling
    x: FloatArray  # (N, D)
    logits: FloatArray  # (N, C) out of fold
    calibrated: FloatArray  # (N, C) likewise, each fold calibrated on its own training tiles
    folds: NDArray[np.int64]
    thresholds: FloatArray  # (N,) that of the probe which predicted the tile


def fit_all(
    found: Frozen,
    data: Path,
    *,
    splits: Sequence[str] = ("test",),
    pooling: Pooling | None = None,
    seed: int = 0,
) -> tuple[dict[str, LinearProbe], list[str]]:
    """A probe for every task that the labels make, by its name; and which labels make none, and why.

    Args:
        found: whose embeddings they read.
        data: a packed set, or a folder of `.npz` sets.
        splits: of a packed set.
        pooling: to use; the one with the least cross-validated log-loss if not given.
        seed: of the folds.

    Raises:
        PackError: the data cannot be read, or no task is in it.
    """
    tiles = read(data, found.preprocessing, splits)
    classified, left_out = tasks.find(tiles, MAX_TILES, seed)
    if not classified:
        where = "" if tiles.seen is None else f" in {', '.join(splits)}"
        reasons = "; ".join(left_out) or "no tile has one"
        raise PackError(f"{data}: no labels to fit a probe on{where} ({reasons})")
    probes = {tasks.file_name(t.name): fit(t, found, pooling=pooling, seed=seed) for t in classified}
    return probes, left_out


def fit(task: Task, found: Frozen, *, pooling: Pooling | None = None, seed: int = 0) -> LinearProbe:
    """The probe of one task; its metrics say how it was chosen and what it reaches on tiles it never saw."""
    poolings: tuple[Pooling, ...] = (pooling,) if pooling else POOLINGS
    if (
        pooling is None
        and len(task.tiles) * found.config.num_tokens * found.config.embed_dim > MAX_TOKEN_VALUES
    ):
        poolings = tuple(p for p in poolings if p != "tokens")
    embedded = found.embed(task.tiles.dn(), task.tiles["encodings"], poolings)
    candidates = [validate(task, p, x.astype(np.float64), seed) for p, x in embedded.items()]
    link = sigmoid if task.multi_label else softmax
    losses = {
        v.pooling: metrics.log_loss(task.truth, link(v.logits), multi_label=task.multi_label)
        for v in candidates
    }
    best = min(candidates, key=lambda v: losses[v.pooling])
    final = _tuned(task, best.x, np.ones(len(best.x), dtype=bool), seed)
    calibrated_loss = metrics.log_loss(task.truth, link(best.calibrated), multi_label=task.multi_label)
    use = calibrated_loss < losses[best.pooling]
    scale, shift = (
        v.astype(np.float32) for v in calibration(task.truth, final.out_of_fold, task.multi_label)
    )
    logits = best.calibrated if use else best.logits
    threshold = linear.best_threshold(task.truth, link(logits)) if task.multi_label else 0.5
    weights, bias = folded(
        final.weights.T,
        final.bias,
        final.standardiser.mean,
        final.standardiser.std,
    )
    return LinearProbe(
        task="multi-label" if task.multi_label else "multi-class",
        pooling=best.pooling,
        labels=task.classes,
        weights=weights,
        bias=bias,
        threshold=threshold,
        scale=scale if use else None,
        shift=shift if use else None,
        metrics={
            **_scores(task, link(logits), best.folds, threshold),
            "regularisation_c": final.c,
            "log_loss": calibrated_loss if use else losses[best.pooling],
            "log_loss_uncalibrated": losses[best.pooling],
            "calibrated": use,
            "log_loss_by_pooling": {str(p): float(v) for p, v in losses.items()},
        },
    )


def validate(task: Task, pooling: Pooling, x: FloatArray, seed: int) -> Validated:
    """Predictions of every tile by probes, and calibrations, fitted without its place."""
    folds = linear.place_folds(task.places, FOLDS, seed)
    logits, calibrated = np.zeros(task.truth.shape), np.zeros(task.truth.shape)
    thresholds = np.full(len(x), 0.5)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        fitted = _tuned(task, x, train, seed)
        logits[test] = fitted.standardiser(x[test]) @ fitted.weights + fitted.bias
        scale, shift = calibration(task.truth[train], fitted.out_of_fold, task.multi_label)
        calibrated[test] = logits[test] * scale + shift
        thresholds[test] = fitted.threshold
    return Validated(pooling, x, logits, calibrated, folds, thresholds)


def _tuned(task: Task, x: FloatArray, rows: NDArray[np.bool_], seed: int) -> Tuned:
    return linear.tuned(x[rows], task.truth[rows], task.places[rows], multi_label=task.multi_label, seed=seed)


def calibration(truth: NDArray[np.bool_], logits: FloatArray, multi_label: bool) -> Calibration:
    """Scale and shift (C,) of the logits that minimise the log-loss on out-of-fold logits (N, C).

    One scale for all classes (temperature; Guo et al. 2017, arXiv 1706.04599) and, for multi-label, one
    shift: a class with a handful of positives has no room for parameters of its own.
    """
    classes = truth.shape[1]

    def apply(parameters: FloatArray) -> FloatArray:
        scaled: FloatArray = logits * np.exp(parameters[0]) + (parameters[1] if multi_label else 0.0)
        return scaled

    def loss(parameters: FloatArray) -> float:
        link = sigmoid if multi_label else softmax
        return metrics.log_loss(truth, link(apply(parameters)), multi_label=multi_label)

    # The default simplex around zero is smaller than the tolerance: the search would end where it begins.
    simplex = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
    options = {"xatol": 1e-3, "fatol": 1e-7, "initial_simplex": simplex}
    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options=options).x
    shift = best[1] if multi_label else 0.0
    return np.full(classes, np.exp(best[0])), np.full(classes, shift)


def _scores(
    task: Task, probabilities: FloatArray, folds: NDArray[np.int64], threshold: float
) -> dict[str, Any]:
    """Metrics of a probe, JSON-ready: protocol, scores with intervals, and what each class reaches."""
    weights = metrics.resamples(task.places)
    score = partial(
        metrics.classification,
        task.truth,
        probabilities,
        multi_label=task.multi_label,
        threshold=threshold,
    )
    values, samples = score(), score(weights=weights)
    scores = {name: Estimate(float(values[name][0]), samples[name]).to_dict() for name in values}
    main = "micro_map" if task.multi_label else "accuracy"
    per_class = [
        {**row, "average_precision": _average_precision(task, probabilities, i) if row["supported"] else None}
        for i, row in enumerate(task.support)
    ]
    shown = scores[main]
    return {
        "protocol": f"{len(np.unique(folds))}-fold cross-validation over places, every tile predicted once",
        "tiles": len(task.tiles),
        "places": len(np.unique(task.places)),
        "source": task.source,
        "scores": scores,
        "classes": per_class,
        "unsupported": [row["label"] for row in task.support if not row["supported"]],
        "chosen_on": "pooling, threshold and calibration were chosen on the same folds",
        "summary": f"{main} {shown['value']:.3f} [{shown['low']:.3f}, {shown['high']:.3f}] out of fold",
    }


def _average_precision(task: Task, probabilities: FloatArray, c: int) -> float:
    return float(metrics.average_precision(task.truth[:, c], probabilities[:, c])[0])


def check_target(path: Path, found: Frozen) -> Bundle:
    """The bundle that probes go into: the one there, or, where there is none, that which was embedded with.

    Raises:
        BundleError: no bundle there, or one of another network or of other weights.
    """
    if found.bundle is not None and not path.exists():
        return found.bundle
    old = bundles.load(path)
    if old.config != found.config or old.preprocessing != found.preprocessing:
        raise BundleError(f"{path} was made from another network than this one; export it again")
    if found.bundle is not None and old.encoder_digest() != found.bundle.encoder_digest():
        raise BundleError(
            f"{path} has another encoder than {found.bundle.path}; probes of one are none of the other"
        )
    if found.bundle is None and not frozen.alike(found, frozen.of_bundle(old)):
        raise BundleError(
            f"{path} was made from other weights than this checkpoint's: give the one that it was exported "
            "from, or export this one again"
        )
    return old


def add_to_bundle(path: Path, found: Frozen, probes: Mapping[str, LinearProbe]) -> Bundle:
    """Put probes into a bundle, beside or in place of those of the same name; all at once or not at all.

    Where there is none yet, and they were fitted on another bundle, a copy of that one gets them.

    Raises:
        BundleError: as `check_target`, or the folder cannot be written.
    """
    old = check_target(path, found)
    return bundle_writer.rewrite(
        old,
        path,
        metrics={**old.metrics, "probes": _summaries(old, probes)},
        files={manifest.probe_file(name): encode(probe) for name, probe in probes.items()},
    )


def _summaries(old: Bundle, probes: Mapping[str, LinearProbe]) -> dict[str, Any]:
    kept = dict(old.metrics.get("probes", {}))
    return {**kept, **{name: {"pooling": p.pooling, **p.metrics["scores"]} for name, p in probes.items()}}
