"""Plots of an evaluation's result, and the colours that all pictures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.features import BAND_STATISTICS, ENCODER, PLACE_AND_TIME, UNTRAINED
from training.report import TITLES
from training.tasks import file_name

# Okabe and Ito's palette, told apart with every kind of colour blindness; two more where ten are needed.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
GREY = "#777777"
PALETTE = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, YELLOW, BLACK, "#882255", "#BBBBBB")
COLOURS = {ENCODER: BLUE, UNTRAINED: ORANGE, BAND_STATISTICS: GREEN, PLACE_AND_TIME: PURPLE}
MARKERS = {ENCODER: "o", UNTRAINED: "s", BAND_STATISTICS: "D", PLACE_AND_TIME: "^"}
DPI = 150
_LEGEND_COLUMNS = 3


def figure(width: float, height: float) -> Figure:
    """An empty figure in inches, with no window system behind it."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> Path:
    """Write a PNG without a date in it: the same picture is the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, metadata={"Software": None})
    return path


def tidy(axes: Axes) -> None:
    """Leave out the frame's lines that carry nothing."""
    axes.spines[["top", "right"]].set_visible(False)


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """All plots of a result."""
    paths = []
    if "reconstruction" in result:
        chart = reconstruction_chart(result["reconstruction"]["all"])
        paths.append(save(chart, folder / "reconstruction_error.png"))
    for name, task in result["tasks"].items():
        stem = file_name(name)
        paths.append(save(probe_chart(name, task), folder / f"probes_{stem}.png"))
        if task["k_shot"]["curves"]:
            paths.append(save(k_shot_chart(name, task), folder / f"k_shot_{stem}.png"))
    for i, (name, part) in enumerate(result.get("land_cover", {}).items(), 1):
        paths.append(save(land_cover_chart(name, part), folder / f"land_cover_{i}.png"))
    return paths


def reconstruction_chart(table: Mapping[str, Any]) -> Figure:
    """Error per band, the model beside the guesses."""
    methods = {
        "model, metadata on": (BLUE, "o"),
        "model, metadata off": (SKY, "o"),
        "mean of visible patches": (GREY, "s"),
        "linear interpolation": (ORANGE, "D"),
        "kriging of blocks": (PURPLE, "v"),
        "kriging": (RED, "^"),
    }
    made = figure(8, 4)
    axes = made.subplots()
    bands = list(table["error"]["model, metadata on"])
    for i, (name, (colour, marker)) in enumerate(methods.items()):
        errors = [table["error"][name][b] for b in bands]
        x = [k + (i - 2.5) * 0.13 for k in range(len(bands))]
        _points(axes, x, errors, colour, marker, name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(bands)), bands)
    axes.set_ylabel("squared z-score per masked value")
    axes.set_title(f"Reconstruction of masked patches, {table['places']} places (lower is better)")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.1))
    tidy(axes)
    return made


def probe_chart(name: str, task: Mapping[str, Any]) -> Figure:
    """The main score of every pooling, tuned and published, beside the baselines."""
    score = "micro_map" if task["kind"] == "multi-label" else "accuracy"
    made = figure(10, 4)
    for axes, protocol in zip(made.subplots(1, 2, sharey=True), ("tuned", "published"), strict=True):
        rows = [r for r in task["probes"] if r["protocol"] == protocol]
        _pooling_points(axes, rows, score)
        axes.set_title(f"{protocol} protocol")
    made.suptitle(f"{name}: {TITLES[score]} of linear probes, {task['tiles']} tiles")
    made.axes[0].set_ylabel(TITLES[score])
    _legend_below(made)
    return made


def _legend_below(made: Figure) -> None:
    handles, names = made.axes[0].get_legend_handles_labels()
    # What is wider than the picture would be cut off at both ends.
    columns = min(len(names), _LEGEND_COLUMNS)
    made.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _pooling_points(axes: Axes, rows: Sequence[Mapping[str, Any]], score: str) -> None:
    poolings = list(dict.fromkeys(r["pooling"] for r in rows if r["pooling"]))
    styles = [
        (ENCODER, "on", -0.2),
        (ENCODER, "off", -0.07),
        (UNTRAINED, "on", 0.07),
        (UNTRAINED, "off", 0.2),
    ]
    for source, metadata, shift in styles:
        found = {r["pooling"]: r for r in rows if (r["features"], r["metadata"]) == (source, metadata)}
        x = [i + shift for i, p in enumerate(poolings) if p in found]
        scores = [found[p]["scores"][score] for p in poolings if p in found]
        if scores:
            label = f"{source}, metadata {metadata}"
            _points(axes, x, scores, COLOURS[source], MARKERS[source], label, hollow=metadata == "off")
    for r in rows:
        if not r["pooling"]:
            e, colour = r["scores"][score], COLOURS[r["features"]]
            if e["value"] is not None:
                axes.axhline(e["value"], color=colour, lw=1.2, ls="--", label=r["features"])
            if e["low"] is not None and e["high"] is not None:
                axes.axhspan(e["low"], e["high"], color=colour, alpha=0.08, lw=0)
    axes.set_xticks(range(len(poolings)), poolings, fontsize=8)
    tidy(axes)


def k_shot_chart(name: str, task: Mapping[str, Any]) -> Figure:
    """Score against the labelled tiles per class."""
    shots = task["k_shot"]
    made = figure(6, 4)
    axes = made.subplots()
    for i, (label, points) in enumerate(shots["curves"].items()):
        x = [k + (i - 2) * 0.06 for k in range(len(points))]
        untrained = label.startswith(UNTRAINED)
        axes.plot(
            x, [p["mean"] for p in points.values()], color=PALETTE[i], lw=1, ls="--" if untrained else "-"
        )
        _points(axes, x, _as_estimates(points), PALETTE[i], "s" if untrained else "o", label)
    ks = list(next(iter(shots["curves"].values())))
    axes.set_xticks(range(len(ks)), ks)
    axes.set_xlabel("labelled tiles per class")
    axes.set_ylabel(TITLES[shots["score"]])
    axes.set_title(f"{name}: few labels, mean and 95 % of {shots['draws']} draws", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return made


def _as_estimates(points: Mapping[str, Mapping[str, float]]) -> list[dict[str, float | None]]:
    return [{"value": p["mean"], "low": p["low"], "high": p["high"]} for p in points.values()]


def land_cover_chart(title: str, part: Mapping[str, Any]) -> Figure:
    """R² of every class and pooling."""
    names = list(part["rows"][0]["scores"])
    made = figure(max(9.0, 3.4 * len(names)), 4.2)
    grid = made.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        _pooling_points(axes, part["rows"], name)
        axes.set_title(name)
        axes.tick_params(axis="x", labelrotation=40)
    grid[0].set_ylabel("R²")
    _legend_below(made)
    made.suptitle(f"Land-cover fractions from frozen embeddings: {title}, {part['windows']} windows")
    return made


def _points(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Mapping[str, float | None]],
    colour: str,
    marker: str,
    label: str,
    *,
    hollow: bool = False,
) -> None:
    """Values with their intervals."""
    known = [(a, e["value"], e["low"], e["high"]) for a, e in zip(x, estimates, strict=True)]
    xs = [a for a, v, *_ in known if v is not None]
    values = [v for _, v, *_ in known if v is not None]
    axes.plot(
        xs, values, marker, color=colour, ms=5, mfc="white" if hollow else colour, label=label, zorder=3
    )
    for a, v, low, high in known:
        if v is not None and low is not None and high is not None:
            axes.plot([a, a], [low, high], color=colour, lw=1.2, zorder=2)
