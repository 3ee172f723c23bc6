"""The contact sheet: tiles with their labels and what a probe that never saw them predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training import stretch
from training.charts import BLACK, BLUE, GREY, RED, figure
from training.tasks import Task

TILES = 20
COLUMNS = 4  # of them
SHORT = {
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Agriculture with natural vegetation"
    ),
    "Natural grassland and sparsely vegetated areas": "Natural grassland, sparse vegetation",
    "Moors, heathland and sclerophyllous vegetation": "Moors, heath, sclerophyllous",
    "Industrial or commercial units": "Industrial, commercial",
    "Complex cultivation patterns": "Complex cultivation",
    "Transitional woodland, shrub": "Transitional woodland",
}


@dataclass(frozen=True)
class Verdict:
    """One label of one tile."""

    label: str
    probability: float
    true: bool
    predicted: bool

    @property
    def text(self) -> str:
        """With a sign that does not depend on colour: ✓ right, ✗ wrongly predicted, – missed."""
        sign = "✓" if self.true and self.predicted else "–" if self.true else "✗"
        return f"{sign} {SHORT.get(self.label, self.label)}  {self.probability:.2f}"

    @property
    def colour(self) -> str:
        """Blue right, red wrongly predicted, black missed."""
        return BLUE if self.true and self.predicted else BLACK if self.true else RED


def verdicts(
    labels: tuple[str, ...], truth: NDArray[np.bool_], probabilities: NDArray[np.float64], threshold: float
) -> list[Verdict]:
    """The labels of a tile that are true or predicted: the right ones, then the wrong, then the missed."""
    predicted = probabilities >= threshold
    found = [
        Verdict(labels[i], float(probabilities[i]), bool(truth[i]), bool(predicted[i]))
        for i in np.flatnonzero(truth | predicted)
    ]
    return sorted(found, key=lambda v: (not (v.true and v.predicted), v.true, -v.probability))


def sheet(task: Task, probabilities: NDArray[np.float64], threshold: float, *, seed: int = 0) -> Figure:
    """Tiles of a multi-label task with their true and predicted labels.

    The tiles are drawn at random, neither good nor bad ones picked.

    Args:
        task: N tiles.
        probabilities: (N, C), each from probes that were fitted without the tile's place.
        threshold: from which a label counts as predicted.
        seed: of the draw.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(task.tiles))[:TILES])
    raw = task.tiles.take(chosen).raw()
    rows = -(-len(chosen) // COLUMNS)
    made = figure(13.5, 1.95 * rows + 1.0)
    grid = made.subplots(rows, 2 * COLUMNS, squeeze=False, width_ratios=[1, 1.2] * COLUMNS)
    for place in grid.ravel():
        place.set_axis_off()
    right = wrong = missed = 0
    for k, tile in enumerate(chosen):
        picture, text = grid[k // COLUMNS, 2 * (k % COLUMNS) : 2 * (k % COLUMNS) + 2]
        picture.imshow(stretch.rgb(raw[k], stretch.TRUE_COLOUR), interpolation="nearest")
        picture.set_anchor("N")
        found = verdicts(task.classes, task.truth[tile], probabilities[tile], threshold)
        right += sum(v.true and v.predicted for v in found)
        wrong += sum(not v.true for v in found)
        missed += sum(v.true and not v.predicted for v in found)
        _write(text, found, _where(task, int(tile)))
    made.suptitle(
        f"{len(chosen)} tiles drawn at random; every probe was fitted without the tile's place. "
        f"Numbers are probabilities; from {threshold:.2f} on a label counts as predicted.\n"
        f"✓ blue: right ({right})    ✗ red: predicted, but not a label ({wrong})    "
        f"– black: a label, but missed ({missed})",
        fontsize=10,
    )
    return made


def _where(task: Task, tile: int) -> str:
    lat, lon = float(task.tiles["lat"][tile]), float(task.tiles["lon"][tile])
    if not np.isfinite(lat):
        return str(task.tiles["id"][tile])
    return f"{abs(lat):.2f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.2f}° {'E' if lon >= 0 else 'W'}"


def _write(axes: Axes, found: list[Verdict], heading: str) -> None:
    axes.text(0, 1, heading, fontsize=7, color=GREY, va="top", transform=axes.transAxes)
    for i, verdict in enumerate(found):
        style = "italic" if verdict.true and not verdict.predicted else "normal"
        axes.text(
            0, 0.87 - 0.115 * i, verdict.text, fontsize=6.8, color=verdict.colour, va="top", style=style,
            transform=axes.transAxes,
        )  # fmt: skip
