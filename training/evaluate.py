"""Evaluate a checkpoint on places that it was not trained on, beside baselines on the same folds.

The parts are in files of their own: metrics, linear (probes), retrieval, kshot, landcover, reconstruction.
This file decides what is measured on what; `report.py` turns the result into a table, `charts.py` into plots.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model import checkpoint, metadata
from model.checkpoint import Checkpoint
from model.probe import POOLINGS
from training import embeddings, kshot, landcover, linear, metrics, reconstruction, retrieval, tasks
from training.embeddings import METADATA, Metadata
from training.heldout import Tiles, read
from training.landcover import Windows
from training.metrics import Estimate
from training.tasks import Task

FloatArray = NDArray[np.float64]

BAND_STATISTICS = "band statistics"
PLACE_AND_TIME = "place and time"
ENCODER, UNTRAINED = "encoder", "untrained encoder"
UNTRAINED_SEED = 0
FOLDS = 5


@dataclass(frozen=True)
class Settings:
    """How much is measured; the defaults take some minutes for a few hundred tiles on one CPU core."""

    splits: tuple[str, ...] = ("test",)
    repeats: int = 3  # of the cross-validation of tuned probes
    published_repeats: int = 1  # SAG on unscaled features is slow
    resamples: int = metrics.RESAMPLES
    draws: int = 50  # of the k-shot curves
    max_tiles: int = 4000  # per task
    max_reconstruction_tiles: int = 800
    stride: int = 12  # px between the windows of the land-cover scene
    seed: int = 0

    @classmethod
    def quick(cls) -> Settings:
        """Whether everything runs; the figures mean little."""
        return cls(repeats=1, resamples=50, draws=2, max_tiles=60, max_reconstruction_tiles=24, stride=40)


@dataclass(frozen=True)
class LandCover:
    """A classified raster, a scene in the same system, and when the scene was taken."""

    scene: Path
    raster: Path
    names: dict[int, str]
    when: str = ""  # RFC 3339 or a date; '' unknown


@dataclass(frozen=True)
class Features:
    """One way to describe a tile."""

    source: str  # encoder, untrained encoder, band statistics, place and time
    pooling: str  # '' for baselines without a network
    metadata: str
    values: FloatArray  # (N, D)

    @property
    def name(self) -> dict[str, str]:
        """What it is, as the columns of the table."""
        return {"features": self.source, "pooling": self.pooling, "metadata": self.metadata}

    @property
    def published(self) -> bool:
        """Whether the published protocol is run on it too: all but the controls."""
        controls = {(ENCODER, "shuffled"), (UNTRAINED, "off"), (UNTRAINED, "shuffled")}
        return (self.source, self.metadata) not in controls


def evaluate(
    found: Checkpoint,
    data: Path,
    *,
    settings: Settings | None = None,
    land_cover: LandCover | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure everything that the data allow.

    Args:
        found: the checkpoint.
        data: a packed set, or a folder of `.npz` sets.
        settings: how much.
        land_cover: for the regression of land-cover fractions.
        quiet: no progress bars.

    Returns:
        JSON-ready results; `report.markdown` shows how they are to be read.

    Raises:
        PackError: the data cannot be read.
    """
    settings = settings or Settings()
    begun = time.monotonic()
    tiles = read(data, found.preprocessing, settings.splits)
    classified, left_out = tasks.find(tiles, settings.max_tiles, settings.seed)
    untrained = checkpoint.initialise(found.config, UNTRAINED_SEED, found.preprocessing)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet) as progress:
        result: dict[str, Any] = {
            "checkpoint": {
                "info": found.info,
                "config": found.config.to_dict(),
                "preprocessing": found.preprocessing.to_dict(),
                "parameters": sum(p.numel() for p in found.model.parameters()),
            },
            "settings": asdict(settings),
            "data": _data(tiles, left_out),
            "tasks": {t.name: _task(t, found, untrained, settings, progress) for t in classified},
        }
        if land_cover is not None:
            result["land_cover"] = _land_cover(land_cover, found, untrained, settings, progress)
        count = min(settings.max_reconstruction_tiles, len(tiles)) * len(METADATA)
        bar = progress.add_task("reconstruction", total=count)
        errors = reconstruction.measure(
            found.model,
            tiles,
            limit=settings.max_reconstruction_tiles,
            seed=settings.seed,
            advance=lambda n: progress.advance(bar, n),
        )
        progress.update(bar, completed=count)
        result["reconstruction"] = reconstruction.summarise(errors, settings.resamples)
    result["seconds"] = round(time.monotonic() - begun, 1)
    return result


def _data(tiles: Tiles, left_out: list[str]) -> dict[str, Any]:
    sources, counts = np.unique(tiles["source"], return_counts=True)
    return {
        "seen_in_pretraining": tiles.seen,
        "tiles": len(tiles),
        "places": len(np.unique(tiles["place"])),
        "sources": {str(s): int(c) for s, c in zip(sources, counts, strict=True)},
        "labels_left_out": left_out,
    }


def _task(
    task: Task, found: Checkpoint, untrained: Checkpoint, settings: Settings, progress: Progress
) -> dict[str, Any]:
    described = features(task.tiles, found, untrained, settings.seed, _bar(progress, f"{task.name}: embed"))
    weights = metrics.resamples(task.places, settings.resamples, settings.seed)
    rows: list[tuple[Features, str, dict[str, Estimate]]] = []
    jobs = [(f, p) for f in described for p in ("tuned", "published") if p == "tuned" or f.published]
    for f, protocol in progress.track(jobs, description=f"{task.name}: probes"):
        repeats = settings.repeats if protocol == "tuned" else settings.published_repeats
        runs = [
            _cross_validated(task, f.values, protocol, weights, settings.seed + r) for r in range(repeats)
        ]
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
        "folds": FOLDS,
        "probes": _with_differences([(f, p, s) for f, p, s in rows]),
        "retrieval": {
            "chance": searches[0][3],
            "rows": _with_differences([(f, p, s) for f, p, s, _ in searches]),
        },
        "k_shot": _k_shot(task, described, settings, progress),
    }


def features(
    tiles: Tiles,
    found: Checkpoint,
    untrained: Checkpoint,
    seed: int,
    advance: Callable[[int, int], None] | None = None,
    *,
    shuffled: bool = True,
) -> list[Features]:
    """Every description of the tiles that is compared: the encoder's poolings, controls and baselines.

    `advance` is told how many tiles are done and how many there are to do.
    """
    dn = tiles.dn()
    passes: list[tuple[str, Checkpoint, Metadata]] = [
        (ENCODER, found, m) for m in METADATA if shuffled or m != "shuffled"
    ]
    passes += [(UNTRAINED, untrained, "on"), (UNTRAINED, untrained, "off")]
    out: list[Features] = []
    for source, network, m in passes:
        encodings = embeddings.with_metadata(tiles, m, seed)
        step = None if advance is None else (lambda n: advance(n, len(passes) * len(dn)))
        embedded = embeddings.embed(network.model.encoder, dn, encodings, POOLINGS, step)
        out += [Features(source, p, m, embedded[p].astype(np.float64)) for p in POOLINGS]
    statistics = embeddings.band_statistics(dn, found.preprocessing.mean, found.preprocessing.std)
    out.append(Features(BAND_STATISTICS, "", "off", statistics.astype(np.float64)))
    place_and_time = tiles["encodings"].reshape(len(tiles), -1).astype(np.float64)
    out.append(Features(PLACE_AND_TIME, "", "on", place_and_time))
    return out


def _cross_validated(
    task: Task, x: FloatArray, protocol: str, weights: FloatArray, seed: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Scores and their resamples from predictions of every tile by probes that never saw its place."""
    folds = linear.place_folds(task.places, FOLDS, seed)
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


def _with_differences(rows: list[tuple[Features, str, dict[str, Estimate]]]) -> list[dict[str, Any]]:
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
            }
            row["minus"] = {
                name: {score: e.minus(by_name[key][score]).to_dict() for score, e in scores.items()}
                for name, key in baselines.items()
                if key in by_name and not (name == "metadata off" and f.metadata == "off")
            }
        table.append(row)
    return table


def _k_shot(task: Task, described: list[Features], settings: Settings, progress: Progress) -> dict[str, Any]:
    enough = metrics.supported(task.truth)
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
        draws=settings.draws,
        seed=settings.seed,
    )
    progress.advance(bar)
    return {
        "score": "micro_map" if task.multi_label else "accuracy",
        "draws": settings.draws,
        "held_out_places": kshot.HELD_OUT,
        "curves": {
            name: {k: _over_draws(np.array(v)) for k, v in curve.items()} for name, curve in curves.items()
        },
    }


def _over_draws(values: FloatArray) -> dict[str, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"mean": float(np.nanmean(values)), "low": float(low), "high": float(high)}


def _land_cover(
    what: LandCover, found: Checkpoint, untrained: Checkpoint, settings: Settings, progress: Progress
) -> dict[str, Any]:
    cover = landcover.read_cover(what.raster, what.names)
    windows = landcover.cut(what.scene, cover, settings.stride, found.config.image_size)
    tiles = _as_tiles(windows, what.when, found)
    strips = landcover.blocks(windows.centre)
    weights = metrics.resamples(strips, settings.resamples, settings.seed)
    # One scene: all at one place and time, so that exchanging them or using them alone says nothing.
    bar = _bar(progress, "land cover: embed")
    described = features(tiles, found, untrained, settings.seed, bar, shuffled=False)
    rows = [
        (f, "ridge", landcover.regress(f.values, windows, weights))
        for f in progress.track(described, description="land cover: regression")
        if f.source != PLACE_AND_TIME
    ]
    return {
        "windows": len(tiles),
        "stride_px": settings.stride,
        "blocks": int(strips.max()) + 1,
        "folds": landcover.FOLDS,
        "mean_fraction": dict(zip(windows.classes, windows.fractions.mean(axis=0).tolist(), strict=True)),
        "score": "r2",
        "rows": _with_differences(rows),
    }


def _as_tiles(windows: Windows, when: str, found: Checkpoint) -> Tiles:
    acquired = metadata.parse_datetime(when) if when else None
    convention = found.preprocessing.hour_convention
    positions = zip(windows.lat, windows.lon, strict=True)
    encoded = [
        metadata.encode(acquired, float(a), float(b), hour_convention=convention) for a, b in positions
    ]
    rows = np.arange(len(windows.dn))
    columns: dict[str, NDArray[Any]] = {"encodings": np.stack(encoded), "place": rows}
    return Tiles(columns, (windows.dn,), np.zeros_like(rows), rows, found.preprocessing, seen=None)


def _bar(progress: Progress, title: str) -> Callable[[int, int], None]:
    bar = progress.add_task(title, total=None)

    def advance(done: int, total: int) -> None:
        progress.update(bar, advance=done, total=total)

    return advance
