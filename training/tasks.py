"""Classification tasks found in the labels of a set of tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import labels
from model.labels import BIGEARTHNET_19, EUROSAT_10, LabelError
from training import metrics
from training.heldout import Tiles

MIN_TILES = 30  # a source with fewer labelled tiles makes no task of its own
MIN_PLACES = 5


@dataclass(frozen=True)
class Task:
    """Labelled tiles of one source."""

    name: str  # bigearthnet-19 or eurosat-10, with the source where several have it
    source: str
    tiles: Tiles  # N
    classes: tuple[str, ...]  # C
    truth: NDArray[np.bool_]  # (N, C)
    multi_label: bool

    @property
    def places(self) -> NDArray[np.int32]:
        """Place of every tile."""
        return self.tiles["place"]

    @property
    def support(self) -> list[dict[str, object]]:
        """Positives of every class, and whether they are enough for a score; JSON-ready."""
        enough = metrics.supported(self.truth)
        return [
            {"label": c, "positives": int(self.truth[:, i].sum()), "supported": bool(enough[i])}
            for i, c in enumerate(self.classes)
        ]


def find(tiles: Tiles, limit: int, seed: int = 0) -> tuple[list[Task], list[str]]:
    """The tasks in a set of tiles, and why labelled sources make none.

    A source's labels decide: CORINE (or the 19 merged) names make `bigearthnet-19`, EuroSAT's class names
    `eurosat-10`. Tiles without a label in the nomenclature are left out, as in the published protocol.

    Args:
        tiles: with labels.
        limit: at most so many tiles a task, drawn at random.
        seed: of that draw.
    """
    tasks: list[Task] = []
    left_out: list[str] = []
    for source in np.unique(tiles["source"]):
        rows = np.flatnonzero((tiles["source"] == source) & (tiles["labels"] != ""))
        if not len(rows):
            continue
        names = [str(text).split("|") for text in tiles["labels"][rows]]
        found = _nomenclature(names)
        if found is None:
            left_out.append(f"{source}: labels of no known nomenclature, such as {names[0][0]!r}")
            continue
        name, classes, sets, multi_label = found
        truth = np.array([[c in s for c in classes] for s in sets], dtype=bool)
        keep = truth.any(axis=1)
        chosen = tiles.take(rows[keep])
        if len(chosen) < MIN_TILES or len(np.unique(chosen["place"])) < MIN_PLACES:
            left_out.append(
                f"{source}: {len(chosen)} tiles labelled for {name} in {len(np.unique(chosen['place']))} "
                f"places; fewer than {MIN_TILES} in {MIN_PLACES}"
            )
            continue
        pick = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:limit])
        tasks.append(Task(name, str(source), chosen.take(pick), classes, truth[keep][pick], multi_label))
    names_found = [t.name for t in tasks]
    return [
        t if names_found.count(t.name) == 1 else Task(f"{t.name} ({t.source})", *_rest(t)) for t in tasks
    ], left_out


def _rest(t: Task) -> tuple[str, Tiles, tuple[str, ...], NDArray[np.bool_], bool]:
    return t.source, t.tiles, t.classes, t.truth, t.multi_label


def _nomenclature(
    names: list[list[str]],
) -> tuple[str, tuple[str, ...], list[tuple[str, ...]], bool] | None:
    if all(len(n) == 1 and n[0] in EUROSAT_10 for n in names):
        return "eurosat-10", EUROSAT_10, [(n[0],) for n in names], False
    try:
        merged = [labels.to_bigearthnet_19(n) for n in names]
    except LabelError:
        return None
    return "bigearthnet-19", BIGEARTHNET_19, merged, True
