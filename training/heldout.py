"""The tiles that an evaluation looks at: chosen rows of a packed set, or all of a folder of `.npz` sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import tiles as tile_rules
from model.config import Preprocessing
from model.windows import TILE_SIZE
from training import places, shards
from training.places import SplitConfig
from training.shards import SPLITS, PackError
from training.sources import Sample, SourceConfig, read_npz

COLUMNS = ("encodings", "valid_fraction", "lat", "lon", "gsd", "b1_estimated", "id", "labels", "place")

Index = NDArray[np.int64]


class EvaluationError(ValueError):
    """Data or options that an evaluation cannot use: what came and what was expected."""


@dataclass(frozen=True)
class Tiles:
    """N tiles; everything but the pixels is in memory.

    Columns (N, ...) as in `Shard.column`: `encodings`, `valid_fraction`, `lat`, `lon`, `gsd`, `b1_estimated`,
    `id`, `labels`, `place`, and `source`.
    """

    columns: dict[str, NDArray[Any]]
    pixels: tuple[NDArray[np.uint16], ...]  # of all shards, (n, 7, S, S) each
    shard: Index
    row: Index
    preprocessing: Preprocessing
    seen: bool | None  # whether these are what pretraining takes of a set; None = the data do not say
    identity: dict[str, str] | None = None  # of the packed set

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def take(self, rows: Index) -> Tiles:
        """Some of the tiles, in the given order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, shard=self.shard[rows], row=self.row[rows])

    def raw(self) -> NDArray[np.uint16]:
        """DN (N, 7, S, S) as in the files."""
        shape = (len(self), *self.pixels[0].shape[1:]) if self.pixels else (0, 7, TILE_SIZE, TILE_SIZE)
        out = np.zeros(shape, np.uint16)
        for s in np.unique(self.shard):
            at = np.flatnonzero(self.shard == s)
            out[at] = self.pixels[s][self.row[at]]
        return out

    def valid(self) -> NDArray[np.bool_]:
        """(N, S, S) pixels with a value in every band."""
        return _valid(self.raw())

    def dn(self) -> NDArray[np.uint16]:
        """DN (N, 7, S, S) as the network takes them: invalid pixels filled by the preprocessing's rule."""
        raw = self.raw()
        return tile_rules.fill(raw, _valid(raw), self.preprocessing.nodata_fill, self.preprocessing.mean)

    def limited(self, count: int, per_place: int | None = None, seed: int = 0) -> Tiles:
        """At most `count` tiles and `per_place` of each place: random places, random tiles in them."""
        order = np.random.default_rng(seed).permutation(len(self))
        place = self["place"][order]
        if per_place is not None:
            by_place = np.argsort(place, kind="stable")
            starts = np.r_[0, np.flatnonzero(np.diff(place[by_place])) + 1]
            rank = np.arange(len(place)) - np.repeat(starts, np.diff(np.r_[starts, len(place)]))
            order = order[np.sort(by_place[rank < per_place])]
        return self.take(np.sort(order[:count]))


def _valid(raw: NDArray[np.uint16]) -> NDArray[np.bool_]:
    measured: NDArray[np.bool_] = (raw != 0).all(axis=1)
    return measured


def read(data: Path, preprocessing: Preprocessing, splits: Sequence[str] = ("test",)) -> Tiles:
    """Read the tiles to evaluate on.

    Args:
        data: a packed set, or a folder of `.npz` sets; of the latter all tiles are taken, and whether
            pretraining saw them is unknown.
        preprocessing: of the network; encodings of a packed set must have been made by the same rules.
        splits: which splits of a packed set.

    Raises:
        PackError: neither of the two, no tile in the splits, or encodings by another hour convention.
    """
    if (data / "manifest.json").is_file():
        return _packed(data, preprocessing, splits)
    files = sorted(data.glob("*.npz"))
    if not files:
        raise PackError(f"{data} is neither a packed set (manifest.json) nor a folder of .npz sets")
    return _npz(files, preprocessing)


def of_scene(
    pixels: NDArray[np.uint16], encodings: Sequence[NDArray[np.float32]], preprocessing: Preprocessing
) -> Tiles:
    """Windows of a scene, DN (N, 7, S, S) and N encodings (4, 2); unknown whether pretraining saw them."""
    rows = np.arange(len(pixels))
    columns: dict[str, NDArray[Any]] = {"encodings": np.stack(encodings), "place": rows}
    return Tiles(columns, (pixels,), np.zeros_like(rows), rows, preprocessing, seen=None)


def _packed(data: Path, preprocessing: Preprocessing, splits: Sequence[str]) -> Tiles:
    packed = shards.open_packed(data)
    packed.check_hours(preprocessing.hour_convention)
    if unknown := set(splits) - set(SPLITS):
        raise PackError(f"no split {', '.join(sorted(unknown))}; expected some of {', '.join(SPLITS)}")
    columns = {name: packed.column(name) for name in COLUMNS}
    columns["source"] = packed.sources()
    wanted = [SPLITS.index(s) for s in splits]
    keep = np.flatnonzero(np.isin(packed.column("split"), wanted) & (columns["valid_fraction"] > 0))
    if not len(keep):
        raise PackError(
            f"{data} has no tile in {', '.join(splits)}; its tiles by split: {packed.by_split} "
            "(--split takes others than test)"
        )
    counts = [s.count for s in packed.shards]
    everything = Tiles(
        columns,
        tuple(s.column("pixels") for s in packed.shards),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(c) for c in counts]),
        preprocessing,
        seen="train" in splits,
        identity=packed.identity(),
    )
    return everything.take(keep)


def _npz(files: Sequence[Path], preprocessing: Preprocessing) -> Tiles:
    found: list[Sample] = []
    sources: list[str] = []
    for file in files:
        config = SourceConfig(name=file.stem, path=Path(file.name), kind="npz")
        samples = [s for s in read_npz(file, config) if isinstance(s, Sample)]
        found += samples
        sources += [file.stem] * len(samples)
    if not found:
        raise PackError(f"no tile in {', '.join(map(str, files))}")
    columns = shards.columns(found, preprocessing.hour_convention)
    names = np.array(sources, np.str_)
    columns["source"] = names
    columns["place"], _ = places.assign(
        columns["lat"], columns["lon"], columns["gsd"], columns["group"], names, SplitConfig()
    )
    pixels = columns.pop("pixels")
    rows = np.arange(len(found))
    return Tiles(columns, (pixels,), np.zeros(len(rows), np.int64), rows, preprocessing, seen=None)
