"""All pictures of a checkpoint: what it reconstructs, how it routes and learnt, how embeddings lie."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from model.checkpoint import Checkpoint
from model.probe import sigmoid
from training import panels, reconstruction, scene_picture, tasks
from training.charts import BLUE, GREY, ORANGE, PALETTE, RED, figure, save
from training.contact_sheet import sheet
from training.embeddings import embed
from training.heldout import EvaluationError, Tiles, read
from training.probe import validate
from training.tasks import Task

PANEL_TILES = 6
ROUTING_TILES = 4
USE_TILES = 128
MAP_TILES = 1500
MAX_TASK_TILES = 2000
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def draw(
    found: Checkpoint,
    data: Path,
    folder: Path,
    *,
    run: Path | None = None,
    scene: Path | None = None,
    scene_time: str = "",
    splits: Sequence[str] = ("test",),
    seed: int = 0,
) -> list[Path]:
    """Draw every picture that the data allow.

    Args:
        found: the checkpoint.
        data: a packed set, or a folder of `.npz` sets.
        folder: where the pictures go.
        run: folder of a pretraining run with train.csv and validation.csv, for its curves.
        scene: GeoTIFF of the seven bands, to be drawn beside the embeddings of its windows.
        scene_time: when it was taken, RFC 3339 or a date; '' = what its tags say.
        splits: of a packed set.
        seed: of every choice of tiles.

    Returns:
        The files written.

    Raises:
        PackError: the data cannot be read.
        EvaluationError: `run` is no folder of a run, or `scene` none of the seven bands.
    """
    if run is not None and not (run / "train.csv").is_file():
        raise EvaluationError(f"{run} has no train.csv; expected the folder of a pretraining run")
    tiles = read(data, found.preprocessing, splits)
    whole = tiles.take(np.flatnonzero(tiles["valid_fraction"] == 1))
    paths: list[Path] = []
    if scene is not None:
        paths.append(save(scene_picture.draw(found, scene, scene_time), folder / "scene.png"))
    if len(whole):
        shown = _one_per_source(whole, PANEL_TILES, seed)
        names = [_name(shown, i) for i in range(len(shown))]
        if reconstruction.has_pixels(found.info):
            drawn = panels.reconstructions(found.model, shown, names, seed)
            paths.append(save(drawn, folder / "reconstruction.png"))
        depth = found.config.depth
        layers = sorted({round(i * (depth - 1) / 5) for i in range(6)})
        few = shown.take(np.arange(min(ROUTING_TILES, len(shown))))
        paths.append(save(panels.routing(found.model, few, names, layers), folder / "routing.png"))
        many = whole.limited(USE_TILES, 2, seed)
        paths.append(save(panels.expert_use(found.model, many), folder / "expert_use.png"))
    classified, _ = tasks.find(tiles, MAX_TASK_TILES, seed)
    sheets = sum(task.multi_label for task in classified)
    for task in classified:
        stem = f"contact_sheet_{tasks.file_name(task.name)}" if sheets > 1 else "contact_sheet"
        paths.append(_of_task(task, found, folder, stem, seed))
    if len(tiles) > 2:
        paths.append(
            save(map_by_source(found, tiles.limited(MAP_TILES, 40, seed), seed), folder / "map_sources.png")
        )
    if run is not None:
        paths.append(save(loss_curves(run), folder / "loss.png"))
    return paths


def _of_task(task: Task, found: Checkpoint, folder: Path, sheet_stem: str, seed: int) -> Path:
    embedded = embed(found.model.encoder, task.tiles.dn(), task.tiles["encodings"], ("mean",))["mean"]
    if not task.multi_label:
        made = map_by_label(embedded, task, seed)
        return save(made, folder / f"map_{tasks.file_name(task.name)}.png")
    checked = validate(task, "mean", embedded.astype(np.float64), seed)
    made = sheet(task, sigmoid(checked.logits), float(np.median(checked.thresholds)), seed=seed)
    return save(made, folder / f"{sheet_stem}.png")


def _one_per_source(tiles: Tiles, count: int, seed: int) -> Tiles:
    """Tiles of all sources in turn, those with the most contrast of a random draw first.

    A tile of open water would show nothing in a picture, whatever the network does.
    """
    pick = tiles.limited(40 * count, 20, seed)
    contrast = pick.raw().astype(np.float64).std(axis=(2, 3)).mean(axis=1)
    sources = pick["source"]
    chosen: list[int] = []
    ranks = {str(s): iter(_middle_first(np.flatnonzero(sources == s), contrast)) for s in np.unique(sources)}
    while len(chosen) < min(count, len(pick)):
        for rows in ranks.values():
            row = next(rows, None)
            if row is not None and len(chosen) < count:
                chosen.append(row)
    return pick.take(np.array(chosen, np.int64))


def _middle_first(rows: NDArray[np.int64], contrast: NDArray[np.float64]) -> list[int]:
    """Rows from the upper quartile of contrast on, so that neither flat tiles nor clouds come first."""
    order = rows[np.argsort(contrast[rows], kind="stable")]
    start = int(0.75 * len(order))
    return [int(r) for r in (*order[start:], *order[:start][::-1])]


def _name(tiles: Tiles, row: int) -> str:
    lat, lon = float(tiles["lat"][row]), float(tiles["lon"][row])
    place = f"{lat:.2f}, {lon:.2f}" if np.isfinite(lat) else str(tiles["id"][row])
    return f"{tiles['source'][row]}\n{place}"


def project(embedded: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Standardised embeddings (N, D) → t-SNE (N, 2), which keeps neighbours together and nothing else."""
    x = embedded.astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    perplexity = min(30.0, (len(x) - 1) / 3)
    flat: NDArray[np.float64] = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
    return flat


def style(number: int) -> tuple[str, str]:
    """Colour and marker of a class or source; a colour that comes again does with another marker."""
    turn, place = divmod(number, len(PALETTE))
    return PALETTE[place], MARKERS[(place + turn) % len(MARKERS)]


def map_by_label(embedded: NDArray[np.float32], task: Task, seed: int = 0) -> Figure:
    """Embeddings of a multi-class task in two dimensions, a colour and a marker for every class."""
    at = project(embedded, seed)
    made = figure(7.5, 5.5)
    axes = made.subplots()
    for c, name in enumerate(task.classes):
        rows = task.truth[:, c]
        colour, marker = style(c)
        axes.scatter(
            at[rows, 0], at[rows, 1], s=34, color=colour, marker=marker, edgecolor="black", lw=0.4, label=name
        )
    axes.set_title(f"Embeddings (mean of tokens) of {len(at)} tiles of {task.name}, t-SNE", fontsize=10)
    _finish_map(made)
    return made


def map_by_source(found: Checkpoint, tiles: Tiles, seed: int = 0) -> Figure:
    """Embeddings of tiles of every source: what the network takes for similar across sensors and places."""
    at = project(embed(found.model.encoder, tiles.dn(), tiles["encodings"], ("mean",))["mean"], seed)
    made = figure(7.5, 5.5)
    axes = made.subplots()
    for c, name in enumerate(np.unique(tiles["source"])):
        rows = tiles["source"] == name
        colour, marker = style(c)
        axes.scatter(
            at[rows, 0],
            at[rows, 1],
            s=18,
            color=colour,
            marker=marker,
            edgecolor="black",
            lw=0.2,
            label=str(name),
        )
    axes.set_title(f"Embeddings (mean of tokens) of {len(at)} tiles by source, t-SNE", fontsize=10)
    _finish_map(made)
    return made


def _finish_map(made: Figure) -> None:
    axes = made.axes[0]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("only who is whose neighbour means something here, not distances or axes", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[:].set_visible(False)


def loss_curves(run: Path) -> Figure:
    """Training and validation loss of a run by step, with the learning rate."""
    train, validation = _read(run / "train.csv"), _read(run / "validation.csv")
    made = figure(9, 3.8)
    left, right = made.subplots(1, 2)
    if train:
        left.plot(train["step"], train["masked"], color=BLUE, lw=1, label="masked")
        left.plot(train["step"], train["unmasked"], color=ORANGE, lw=1, label="unmasked")
        rate = left.twinx()
        rate.plot(train["step"], train["learning_rate"], color=GREY, lw=1, ls=":")
        rate.set_ylabel("learning rate (dotted)", color=GREY, fontsize=8)
        rate.tick_params(labelsize=7, colors=GREY)
        left.plot([], [], color=GREY, lw=1, ls=":", label="learning rate")
    left.set_yscale("log")
    left.set_title("Training loss, summed over a patch's values", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    if validation:
        right.plot(validation["step"], validation["masked"], color=BLUE, marker="o", ms=3, label="model")
        right.set_xlim(left=0)
        if "band_mean" in validation:
            right.axhline(
                validation["band_mean"][-1], color=RED, ls="--", lw=1, label="mean of visible patches"
            )
        right.legend(frameon=False, fontsize=8)
    right.set_ylim(bottom=0)
    right.set_title("Validation: squared z-score per masked value", fontsize=9)
    left.yaxis.set_major_formatter(ScalarFormatter())
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.tick_params(which="both", labelsize=8)
    right.spines[["top", "right"]].set_visible(False)
    return made


def _read(path: Path) -> dict[str, list[float]]:
    """Columns of a CSV of numbers; nothing where the file is not there."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]} if rows else {}
