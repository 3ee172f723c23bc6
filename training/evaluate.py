"""Evaluate a checkpoint or a bundle on places that it was not trained on, beside baselines on the same folds.

The parts are in files of their own: comparison (probes, retrieval, few labels), landcover, reconstruction.
This file decides what is measured on what; `report.py` turns the result into a table, `charts.py` into plots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model import checkpoint
from model.moe_mae import MoEMAE
from training import frozen, landcover, metrics, reconstruction, tasks
from training.comparison import compare, with_differences
from training.embeddings import METADATA
from training.features import PLACE_AND_TIME, features
from training.frozen import Frozen
from training.heldout import Tiles, read
from training.landcover import Windows
from training.scene import LandCover, Scene, read_scene
from training.state import DATA
from training.tasks import Task

UNTRAINED_SEED = 0
MIN_WINDOWS = 100  # tiles of a source on the land-cover raster; fewer, or all in one spot, say little


@dataclass(frozen=True)
class Settings:
    """How much is measured; the defaults take some minutes for a few hundred tiles on one CPU core."""

    splits: tuple[str, ...] = ("test",)
    folds: int = 5  # of whole places
    repeats: int = 3  # of the cross-validation of tuned probes
    published_repeats: int = 1  # SAG on unscaled features is slow
    resamples: int = metrics.RESAMPLES
    draws: int = 50  # of the k-shot curves
    max_tiles: int = 4000  # per task
    max_reconstruction_tiles: int = 800
    stride: int = 12  # px between the windows of the land-cover scene
    max_windows: int = 500  # of a source on the land-cover raster
    seed: int = 0
    trial: bool = False  # too little of everything for figures to quote

    @classmethod
    def quick(cls) -> Settings:
        """Whether everything runs; the figures mean little."""
        return cls(
            folds=2,
            repeats=1,
            resamples=50,
            draws=2,
            max_tiles=60,
            max_reconstruction_tiles=24,
            stride=40,
            trial=True,
        )

    def on(self, splits: Sequence[str]) -> Settings:
        """The same, for other splits of a packed set."""
        return replace(self, splits=tuple(splits))


def evaluate(
    found: Frozen,
    data: Path,
    *,
    settings: Settings | None = None,
    land_cover: LandCover | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure everything that the data allow.

    Args:
        found: the network. What is masked is reconstructed by a checkpoint's only, trained on pixels; bundles
            have no decoder.
        data: a packed set, or a folder of `.npz` sets.
        settings: how much.
        land_cover: for the regression of land-cover fractions.
        quiet: no progress bars.

    Returns:
        JSON-ready results; `report.markdown` shows how they are to be read.

    Raises:
        PackError: the data cannot be read.
        EvaluationError: no tile is without invalid pixels, or the scene or its land cover cannot be used.
    """
    settings = settings or Settings()
    begun = time.monotonic()
    tiles = read(data, found.preprocessing, settings.splits)
    scene = None if land_cover is None else read_scene(land_cover, found, settings.stride)  # before the work
    classified, left_out = tasks.find(tiles, settings.max_tiles, settings.seed)
    untrained = frozen.of_checkpoint(checkpoint.initialise(found.config, UNTRAINED_SEED, found.preprocessing))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet) as progress:
        # First, since it may refuse the tiles.
        rebuilt = None
        if found.network is not None and reconstruction.has_pixels(found.info):
            rebuilt = _reconstruction(found.network, tiles, settings, progress)
        result: dict[str, Any] = {
            "checkpoint": {
                "info": found.info,
                "config": found.config.to_dict(),
                "preprocessing": found.preprocessing.to_dict(),
                "parameters": _parameters(found),
            },
            "settings": asdict(settings),
            "data": _data(tiles, _seen(tiles, found.info, settings.splits), left_out),
            "tasks": {t.name: _task(t, found, untrained, settings, progress) for t in classified},
        }
        if scene is not None:
            result["land_cover"] = _land_cover(scene, tiles, found, untrained, settings, progress)
        if rebuilt is not None:
            result["reconstruction"] = rebuilt
    result["seconds"] = round(time.monotonic() - begun, 1)
    return result


def _parameters(found: Frozen) -> int | None:
    """With the decoder; None of a bundle, which has none."""
    return None if found.network is None else sum(p.numel() for p in found.network.parameters())


def _reconstruction(network: MoEMAE, tiles: Tiles, settings: Settings, progress: Progress) -> dict[str, Any]:
    count = min(settings.max_reconstruction_tiles, len(tiles)) * len(METADATA)
    bar = progress.add_task("reconstruction", total=count)
    errors = reconstruction.measure(
        network,
        tiles,
        limit=settings.max_reconstruction_tiles,
        seed=settings.seed,
        advance=lambda n: progress.advance(bar, n),
    )
    progress.update(bar, completed=count)
    return reconstruction.summarise(errors, settings.resamples)


def _seen(tiles: Tiles, info: dict[str, Any], splits: Sequence[str]) -> bool | None:
    """Whether these splits were trained on, by the recipes of the run and of the encoder it began with.

    None where that is not known: of another set than the run's, whose splits may be others, and of weights
    that came without a recipe.
    """
    foreign = info.get(DATA, tiles.identity) != tiles.identity or (
        bool(info.get("trained")) and "recipe" not in info
    )
    if tiles.seen is None or foreign:
        return None
    split = info.get("recipe", {"data": {}})["data"].get("split", "train")  # None trained on all
    if split is None or split in splits:
        return True
    return "encoder" in info and _seen(tiles, info["encoder"], splits)


def _data(tiles: Tiles, seen: bool | None, left_out: list[str]) -> dict[str, Any]:
    sources, counts = np.unique(tiles["source"], return_counts=True)
    return {
        "seen_in_pretraining": seen,
        "tiles": len(tiles),
        "places": len(np.unique(tiles["place"])),
        "sources": {str(s): int(c) for s, c in zip(sources, counts, strict=True)},
        "labels_left_out": left_out,
    }


def _task(
    task: Task, found: Frozen, untrained: Frozen, settings: Settings, progress: Progress
) -> dict[str, Any]:
    bar = _bar(progress, f"{task.name}: embed")
    return compare(
        task,
        features(task.tiles, found, untrained, settings.seed, bar),
        progress,
        count=settings.folds,
        repeats=settings.repeats,
        published_repeats=settings.published_repeats,
        resamples=settings.resamples,
        draws=settings.draws,
        seed=settings.seed,
    )


def _land_cover(
    scene: Scene,
    tiles: Tiles,
    found: Frozen,
    untrained: Frozen,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """The scene's windows, and the tiles of every source that lie on the raster in numbers."""
    sets: dict[str, tuple[Windows, Tiles, int | None]] = {
        f"scene {scene.name}": (scene.windows, scene.tiles, settings.stride)
    }
    for source in np.unique(tiles["source"]):
        of_source = tiles.take(np.flatnonzero(tiles["source"] == source))
        windows, index = landcover.under(of_source, scene.cover)
        if len(index) >= MIN_WINDOWS:
            pick = np.sort(
                np.random.default_rng(settings.seed).permutation(len(index))[: settings.max_windows]
            )
            if landcover.separable(chosen := windows.take(pick)):
                sets[str(source)] = chosen, of_source.take(index[pick]), None
    return {
        name: {
            "stride_px": stride,
            **_regressions(name, windows, of_set, found, untrained, settings, progress),
        }
        for name, (windows, of_set, stride) in sets.items()
    }


def _regressions(
    name: str,
    windows: Windows,
    tiles: Tiles,
    found: Frozen,
    untrained: Frozen,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    strips = landcover.blocks(windows.centre)
    weights = metrics.resamples(strips, settings.resamples, settings.seed)
    # One scene: all at one place and time, so that exchanging them or using them alone says nothing.
    bar = _bar(progress, f"land cover, {name}: embed")
    described = features(tiles, found, untrained, settings.seed, bar, shuffled=False)
    rows = [
        (f, "ridge", landcover.regress(f.values, windows, weights))
        for f in progress.track(described, description=f"land cover, {name}: regression")
        if f.source != PLACE_AND_TIME
    ]
    return {
        "windows": len(tiles),
        "blocks": int(strips.max()) + 1,
        "folds": landcover.FOLDS,
        "mean_fraction": dict(zip(windows.classes, windows.fractions.mean(axis=0).tolist(), strict=True)),
        "score": "r2",
        "rows": with_differences(rows),
    }


def _bar(progress: Progress, title: str) -> Callable[[int, int], None]:
    bar = progress.add_task(title, total=None)

    def advance(done: int, total: int) -> None:
        progress.update(bar, advance=done, total=total)

    return advance
