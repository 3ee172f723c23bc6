"""`splits.csv`: every packed tile with its place and split; by it a place keeps its split when data is added.

It has positions, since a source may be renamed, and a changed set may give old ids to other tiles.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from training.places import SplitConfig
from training.shards import SPLITS, PackedSet, PackError

FILE = "splits.csv"
COLUMNS = ("id", "source", "place", "split", "lat", "lon")
MANIFEST = "manifest.json"
BEFORE = "manifest.before.json"  # the last one, while a set is packed again: its settings made splits.csv

Key = tuple[str, ...]


@dataclass(frozen=True)
class LastSplits:
    """The splits that tiles were in when they were last packed.

    `binding` says that the settings of the splits were the same, so that places keep theirs.
    """

    by_key: Mapping[Key, int]
    binding: bool

    def of(self, packed: PackedSet) -> NDArray[np.int8]:
        """int8 (tiles,): indices into `SPLITS`, -1 for tiles that are new."""
        positions = zip(packed.column("lat"), packed.column("lon"), strict=True)
        rows = zip(packed.sources(), packed.column("id"), positions, strict=True)
        keys = (
            [*_keys(str(source), str(name), *map(_degrees, at)), *_keys(str(source), str(name), None, None)]
            for source, name, at in rows
        )
        found = [next((self.by_key[key] for key in tile if key in self.by_key), -1) for tile in keys]
        return np.array(found, np.int8)


def read_last(folder: Path, config: SplitConfig) -> LastSplits:
    """What the last packing into a folder says; nothing where there was none.

    Raises:
        PackError: its `splits.csv` cannot be used.
    """
    file = folder / FILE
    by_key: dict[Key, int] = {}
    if not file.is_file():
        return LastSplits(by_key, binding=False)
    try:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                split = SPLITS.index(row["split"])
                exact, *others = _keys(row["source"], row["id"], row.get("lat"), row.get("lon"))
                by_key[exact] = split
                for key in others:  # of several tiles in one place, the more protected split
                    by_key[key] = max(split, by_key.get(key, split))
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise PackError(
            f"{file} cannot be used ({error!r}); expected the columns {', '.join(COLUMNS)} as pack wrote "
            "them. Remove it, and all places are drawn anew"
        ) from error
    return LastSplits(by_key, binding=_settings(folder) == config)


def write(packed: PackedSet, place: NDArray[np.int32], split: NDArray[np.uint8]) -> None:
    """Write `splits.csv`, a line per tile in the set's order; it is replaced when complete."""
    lat, lon = packed.column("lat"), packed.column("lon")
    names = (SPLITS[code] for code in split)
    rows = zip(
        packed.column("id"),
        packed.sources(),
        place,
        names,
        map(_degrees, lat),
        map(_degrees, lon),
        strict=True,
    )
    partial = packed.path / f"{FILE}.partial"
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    partial.replace(packed.path / FILE)


def moved(last: NDArray[np.int8], split: NDArray[np.uint8]) -> dict[str, int]:
    """How many tiles went from one split to another, such as {"train to test": 3}."""
    changed = (last >= 0) & (last != split)
    pairs = zip(last[changed], split[changed], strict=True)
    counts = Counter(f"{SPLITS[before]} to {SPLITS[after]}" for before, after in pairs)
    return dict(sorted(counts.items()))


def _keys(source: str, name: str, lat: str | None, lon: str | None) -> list[Key]:
    """By what a tile is known again, the surest first; older files have no positions: None."""
    if lat is None or lon is None:
        return [("tile", source, name)]
    exact = ("row", source, name, lat, lon)
    return [exact, ("at", lat, lon)] if lat else [exact]


def _degrees(value: float) -> str:
    """To a metre, '' where unknown."""
    return f"{value:.5f}" if math.isfinite(value) else ""


def _settings(folder: Path) -> SplitConfig | None:
    """The settings of the last packing; None where they are not known."""
    path = next((path for name in (MANIFEST, BEFORE) if (path := folder / name).is_file()), None)
    try:
        return SplitConfig.model_validate(json.loads(path.read_text())["config"]["splits"]) if path else None
    except (KeyError, TypeError, ValueError, ValidationError):
        return None
