"""Which tiles show the same place, and which split a place belongs to.

Neighbouring tiles look alike, and a place may occur on several dates or under several sensors. So a split is
made of whole places: connected components of tiles whose footprints lie within a few kilometres.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from model.windows import TILE_SIZE
from training.shards import SPLITS

EARTH_RADIUS_KM = 6371.0
CELL_KM = 0.25  # tiles closer than this are one point: dense overlapping windows cost no more than their area
KNOWN_GSD = 30.0  # metres a pixel, where a tile does not say

FloatArray = NDArray[np.float64]


class SplitRule(BaseModel):
    """Sends the tiles of a source, or those centred in a box, to a split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["train", "validation", "test"]
    source: str | None = None
    box: tuple[float, float, float, float] | None = Field(
        default=None,
        description="south, west, north, east in degrees; a margin around it is given to no split",
    )

    @model_validator(mode="after")
    def _one_condition(self) -> SplitRule:
        if (self.source is None) == (self.box is None):
            raise ValueError(
                f"a split rule needs exactly one of source and box; got {self.source}, {self.box}"
            )
        if self.box and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError(f"box {self.box}: expected south < north and west < east")
        return self


class SplitConfig(BaseModel):
    """How places are divided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["place", "source"] = Field(
        default="place",
        description="source: rules hold for their own tiles only, as in published splits, whose tiles adjoin",
    )
    distance_km: float = Field(default=5.0, ge=0, description="footprints closer than this are one place")
    validation: float = Field(default=0.1, ge=0, le=1, description="share of the places without a rule")
    test: float = Field(default=0.1, ge=0, le=1)
    seed: int = 0
    rules: tuple[SplitRule, ...] = ()

    @model_validator(mode="after")
    def _shares(self) -> SplitConfig:
        if self.by == "source" and any(rule.box for rule in self.rules):
            raise ValueError("by: source takes rules with a source only; got a box")
        if self.validation + self.test > 1:
            raise ValueError(f"validation {self.validation} + test {self.test} is more than 1")
        return self


def assign(
    lat: FloatArray,
    lon: FloatArray,
    gsd: NDArray[np.float32],
    groups: NDArray[np.str_],
    sources: NDArray[np.str_],
    config: SplitConfig,
    last: NDArray[np.int8] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Place and split of every tile.

    A box cuts a place in two: tiles centred in it form places of their own, and tiles within `distance_km` of
    one of those go to no split (`buffer`). A source rule takes the whole place that a tile of the source is
    in; where two rules meet in one place, the more protected split wins (test, then validation, then train).
    A place without a rule keeps the split that its tiles were last in, by the same order; without either, its
    split is drawn.

    Args:
        lat: degrees, NaN where unknown; then the tile's place is its group within its source.
        lon: degrees.
        gsd: metres per pixel, NaN where unknown.
        groups: scene or patch a tile comes from.
        sources: name of its source.
        config: distance, shares and rules.
        last: the split each tile is to keep, -1 for none; None = none at all.

    Returns:
        int32 place numbers from 0, and indices into `SPLITS`.
    """
    known = np.isfinite(lat) & np.isfinite(lon)
    half_km = np.where(np.isfinite(gsd) & (gsd > 0), gsd, KNOWN_GSD) * TILE_SIZE / 2000
    box_of = np.full(len(lat), -1)
    for number, rule in enumerate(config.rules):
        if rule.box:
            south, west, north, east = rule.box
            inside = known & (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
            box_of[inside & (box_of < 0)] = number
    buffer = np.zeros(len(lat), np.bool_)
    boxed = box_of >= 0
    if boxed.any():
        free = np.flatnonzero(known & ~boxed)
        near = _near_any(
            lat[free], lon[free], half_km[free], lat[boxed], lon[boxed], half_km[boxed], config.distance_km
        )
        buffer[free[near]] = True

    place = np.full(len(lat), -1, np.int32)
    count = 0
    for part in [*(box_of == n for n in range(len(config.rules))), known & ~boxed]:
        rows = np.flatnonzero(part & known & ~buffer)
        if len(rows):
            labels = components(lat[rows], lon[rows], half_km[rows], config.distance_km)
            place[rows] = labels + count
            count += int(labels.max()) + 1
    rest = np.flatnonzero(place < 0)
    names = [f"buffer/{sources[r]}" if buffer[r] else f"{sources[r]}/{groups[r]}" for r in rest]
    _, numbers = np.unique(np.array(names, np.str_), return_inverse=True)
    place[rest] = numbers + count
    kept = np.full(len(lat), -1, np.int8) if last is None else last
    split = _splits(place, lat, lon, groups, sources, box_of, kept, config)
    if config.by == "source":
        for rule in config.rules:
            if rule.source:
                split[sources == rule.source] = SPLITS.index(rule.split)
    split[buffer] = SPLITS.index("buffer")
    return place, split


def components(
    lat: FloatArray, lon: FloatArray, half_km: FloatArray, distance_km: float
) -> NDArray[np.int32]:
    """Component number of every tile; two tiles are linked where their footprints are within `distance_km`.

    Footprints are taken as discs of half the tile's side, `half_km`; positions are rounded to `CELL_KM`.
    """
    keys = np.column_stack([np.round(_unit(lat, lon) * (EARTH_RADIUS_KM / CELL_KM)), np.round(half_km, 2)])
    cells, cell_of = np.unique(keys, axis=0, return_inverse=True)
    points, radii = cells[:, :3] * CELL_KM, cells[:, 3]
    links = []
    sizes = np.unique(radii)
    for i, a in enumerate(sizes):
        rows_a = np.flatnonzero(radii == a)
        tree_a = cKDTree(points[rows_a])
        for b in sizes[i:]:
            rows_b = np.flatnonzero(radii == b)
            reach = distance_km + a + b
            near = tree_a.sparse_distance_matrix(cKDTree(points[rows_b]), reach, output_type="ndarray")
            links.append(np.column_stack([rows_a[near["i"]], rows_b[near["j"]]]))
    edges = np.concatenate(links)
    graph = coo_array(
        (np.ones(len(edges), np.bool_), (edges[:, 0], edges[:, 1])), shape=(len(cells), len(cells))
    )
    _, labels = connected_components(graph, directed=False)
    result: NDArray[np.int32] = labels[cell_of.reshape(-1)].astype(np.int32)
    return result


def _near_any(
    lat: FloatArray,
    lon: FloatArray,
    half_km: FloatArray,
    to_lat: FloatArray,
    to_lon: FloatArray,
    to_half_km: FloatArray,
    distance_km: float,
) -> NDArray[np.bool_]:
    """Which tiles have a footprint within `distance_km` of any of the others."""
    near = np.zeros(len(lat), np.bool_)
    points = _unit(lat, lon) * EARTH_RADIUS_KM
    for half in np.unique(to_half_km):
        rows = to_half_km == half
        nearest, _ = cKDTree(_unit(to_lat[rows], to_lon[rows]) * EARTH_RADIUS_KM).query(points)
        near |= nearest <= distance_km + half + half_km
    return near


def _splits(
    place: NDArray[np.int32],
    lat: FloatArray,
    lon: FloatArray,
    groups: NDArray[np.str_],
    sources: NDArray[np.str_],
    box_of: NDArray[np.int_],
    last: NDArray[np.int8],
    config: SplitConfig,
) -> NDArray[np.uint8]:
    """Split of every tile, by its place."""
    ruled = np.full(int(place.max()) + 1, -1) if len(place) else np.zeros(0, np.int_)
    for number, rule in enumerate(config.rules):
        rows = box_of == number if rule.box else (sources == rule.source) & (box_of < 0)
        hit = np.unique(place[rows])
        ruled[hit] = np.maximum(ruled[hit], SPLITS.index(rule.split))  # SPLITS is in order of protection
    free = np.flatnonzero((ruled[place] < 0) & (last >= 0) & (last < SPLITS.index("buffer")))
    np.maximum.at(ruled, place[free], last[free])
    # Drawn by position and not by number, so that adding data elsewhere does not move a place.
    cells: defaultdict[int, set[str]] = defaultdict(set)
    for row in np.flatnonzero(ruled[place] < 0):
        at = f"{lat[row]:.1f} {lon[row]:.1f}" if np.isfinite(lat[row]) else f"{sources[row]}/{groups[row]}"
        cells[int(place[row])].add(at)
    for number, where in cells.items():
        # The cell of the lowest hash: in whatever order tiles come, of n cells a new one is it 1 in n times.
        draw = _uniform(f"{config.seed} {min(where, key=_uniform)}")
        ruled[number] = 2 if draw < config.test else 1 if draw < config.test + config.validation else 0
    result: NDArray[np.uint8] = ruled[place].astype(np.uint8)
    return result


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56


def _unit(lat: FloatArray, lon: FloatArray) -> FloatArray:
    """Degrees → unit vectors (N, 3): chords, within 0.1 m of the arc at these distances."""
    phi, lam = np.radians(lat), np.radians(lon)
    return np.column_stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])


def summary(place: NDArray[np.int32], split: NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Tiles and places of each split."""
    names: Sequence[str] = SPLITS
    return {
        name: {"tiles": int((split == i).sum()), "places": len(np.unique(place[split == i]))}
        for i, name in enumerate(names)
    }
