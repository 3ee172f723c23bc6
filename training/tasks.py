"""Classification tasks found in the labels of a set of tiles."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model import labels
from model.labels import BIGEARTHNET_19, EUROSAT_10, LabelError
from training import metrics
from training.heldout import Tiles

SHOWN = 5  # labels that are left out, in a message
MAX_NAME = 64  # characters of a probe's name in a bundle
MIN_TILES = 30  # a source with fewer labelled tiles makes no task of its own
MIN_PLACES = 5
# A label of one's own that fewer tiles or places have makes no class: nothing could be said of how well it is
# told, in one place not even by a probe that never saw the place.
MIN_LABEL_TILES = metrics.MIN_POSITIVES
MIN_LABEL_PLACES = 2


@dataclass(frozen=True)
class Task:
    """Labelled tiles of one source."""

    name: str  # the nomenclature's, with the source where several have it; for others the source's
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


def file_name(task: str) -> str:
    """A task's name as its probe and its pictures are called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", task).strip("-.")[:MAX_NAME] or "labels"


def find(tiles: Tiles, limit: int, seed: int = 0) -> tuple[list[Task], list[str]]:
    """The tasks in a set of tiles, and what labelled sources, or labels, are left out of them and why.

    A source's labels decide: CORINE (or the 19 merged) names make `bigearthnet-19`, EuroSAT's class names
    `eurosat-10`; tiles without a label in the nomenclature are left out, as in the published protocol. All
    others make a task of the source's name, whose classes are the labels found in these tiles, sorted;
    multi-label if any tile has several. A label of fewer than `MIN_LABEL_TILES` tiles or `MIN_LABEL_PLACES`
    places makes no class, and tiles that have no other are left out.

    Args:
        tiles: with labels.
        limit: at most so many tiles a task, drawn at random.
        seed: of that draw.
    """
    tasks: list[Task] = []
    left_out: list[str] = []
    for source in map(str, np.unique(tiles["source"])):
        of_source = tiles.take(np.flatnonzero(tiles["source"] == source))
        sets = [_labels(text) for text in of_source["labels"]]
        rows = [i for i, found in enumerate(sets) if found]
        if not rows:
            continue
        labelled = of_source.take(np.array(rows))
        names = [sets[i] for i in rows]
        task = _of_nomenclature(source, labelled, names)
        if task is None:
            task, rare = _of_its_own(source, labelled, names)
            left_out += rare
        places = len(np.unique(task.places))
        if len(task.tiles) < MIN_TILES or places < MIN_PLACES:
            left_out.append(
                f"{source}: {len(task.tiles)} tiles labelled for {task.name} in {places} places; expected at "
                f"least {MIN_TILES} in {MIN_PLACES} (tiles within 5 km of each other are one place)"
            )
        elif len(task.classes) < 2:
            left_out.append(f"{source}: {task.classes[0]!r} is its only label; expected at least 2")
        else:
            pick = _drawn(task.places, limit, seed)
            tasks.append(replace(task, tiles=task.tiles.take(pick), truth=task.truth[pick]))
    names_found = [t.name for t in tasks]
    return [
        t if names_found.count(t.name) == 1 else replace(t, name=f"{t.name} ({t.source})") for t in tasks
    ], left_out


def _drawn(places: NDArray[np.int32], limit: int, seed: int) -> NDArray[np.int64]:
    """At most `limit` rows at random, of `MIN_PLACES` places also where nearly all tiles are in one."""
    order = np.random.default_rng(seed).permutation(len(places))
    _, first = np.unique(places[order], return_index=True)
    kept = np.sort(first)[:MIN_PLACES]  # drawn anyway, but where the draw has fewer places
    return np.sort(np.r_[order[kept], np.delete(order, kept)][:limit])


def _labels(text: str) -> tuple[str, ...]:
    """`forest|lake` → its labels, each once."""
    return tuple(dict.fromkeys(part for part in map(str.strip, str(text).split("|")) if part))


def _of_nomenclature(source: str, tiles: Tiles, names: list[tuple[str, ...]]) -> Task | None:
    """The task of a known nomenclature, where all labels (one or more a tile) are of it."""
    if all(len(n) == 1 and n[0] in EUROSAT_10 for n in names):
        return _task("eurosat-10", source, tiles, names, False, EUROSAT_10)
    try:
        merged = [labels.to_bigearthnet_19(n) for n in names]
    except LabelError:
        return None
    return _task("bigearthnet-19", source, tiles, merged, True, BIGEARTHNET_19)


def _of_its_own(source: str, tiles: Tiles, names: list[tuple[str, ...]]) -> tuple[Task, list[str]]:
    """The task of the labels found, and a line about those that are too rare, if there are any."""
    count = Counter(label for n in names for label in n)
    places: dict[str, set[int]] = {label: set() for label in count}
    for n, place in zip(names, tiles["place"].tolist(), strict=True):
        for label in n:
            places[label].add(place)
    rare = sorted(c for c in count if count[c] < MIN_LABEL_TILES or len(places[c]) < MIN_LABEL_PLACES)
    classes = tuple(sorted(count.keys() - set(rare)))
    kept = [tuple(label for label in n if label in classes) for n in names]
    task = _task(source, source, tiles, kept, any(len(n) > 1 for n in names), classes)
    if not rare:
        return task, []
    shown = ", ".join(f"{c!r} ({count[c]} tiles, {len(places[c])} places)" for c in rare[:SHOWN])
    more = f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
    return task, [
        f"{source}: labels of under {MIN_LABEL_TILES} tiles or {MIN_LABEL_PLACES} places: {shown}{more}; "
        f"with them {len(tiles) - len(task.tiles)} tiles that have no other"
    ]


def _task(
    name: str,
    source: str,
    tiles: Tiles,
    names: list[tuple[str, ...]],
    multi_label: bool,
    classes: tuple[str, ...],
) -> Task:
    """The tiles that have a label; all labels are among the classes."""
    number = {c: i for i, c in enumerate(classes)}
    truth = np.zeros((len(names), len(classes)), dtype=bool)
    for row, n in zip(truth, names, strict=True):
        row[[number[label] for label in n]] = True
    rows = np.flatnonzero(truth.any(axis=1))
    return Task(name, source, tiles.take(rows), classes, truth[rows], multi_label)
