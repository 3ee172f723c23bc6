"""Small packed sets, made by code."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from model.config import HourConvention
from model.metadata import parse_datetime
from tests.rasters import dn_pixels
from training.pack import PackConfig, pack
from training.shards import PackedSet
from training.sources import Sample


def sample(number: int = 0, **changes: object) -> Sample:
    """A good tile; every number has other pixels."""
    values: dict[str, object] = {
        "id": f"tile_{number}",
        "dn": dn_pixels(40, 40, seed=number),
        "when": parse_datetime("2020-08-02T18:31:00Z"),
        "lat": 10.0 + number,
        "lon": 20.0,
        "gsd": 30.0,
        "group": f"group_{number}",
    }
    return Sample(**(values | changes))  # type: ignore[arg-type]


def npz(path: Path, count: int = 24, *, holes: bool = True) -> Path:
    """An `.npz` set of `count` tiles a degree apart, with holes in every third and no place for the last."""
    tiles = np.stack([dn_pixels(40, 40, seed=i) for i in range(count)])
    if holes:
        tiles[::3, 2, :5, :7] = 0
    lat = np.linspace(-60, 60, count).astype(np.float32)
    lat[-1] = np.nan
    np.savez(
        path,
        x=tiles,
        lat=lat,
        lon=np.where(np.isnan(lat), np.nan, 5).astype(np.float32),
        time=np.array(["2019-07-27" if i % 2 else "2019-07-27T10:00:00Z" for i in range(count)]),
        label=np.array(["Forest|Water" if i == 1 else "" for i in range(count)]),
        id=np.array([f"t{i}" for i in range(count)]),
        group=np.array([f"g{i}" for i in range(count)]),
        gsd=np.full(count, 30, np.float32),
        b1_estimated=np.arange(count) % 4 == 0,
    )
    return path


def packed(folder: Path, count: int = 24, *, hours: HourConvention = "full", **splits: object) -> PackedSet:
    """A packed set of one `.npz`, by default half of it for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    npz(folder / "set.npz", count)
    config = PackConfig.model_validate(
        {
            "sources": [{"name": "set", "kind": "npz", "path": "set.npz"}],
            "splits": splits or {"validation": 0.5, "test": 0},
            "hour_convention": hours,
        }
    )
    return pack(config, folder, folder / "packed", workers=1, quiet=True)


def packing(root: Path, *sources: dict[str, object], out: str = "packed", **options: object) -> PackedSet:
    """Pack sources, given as in a YAML file, with paths below `root`."""
    config = PackConfig.model_validate({"sources": sources, **options})
    return pack(config, root, root / out, workers=1, quiet=True)


def skipped(packed: PackedSet) -> dict[str, str]:
    """Why a file gave no tile, by its name."""
    with (packed.path / "skipped.csv").open() as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def write(path: Path, data: bytes) -> Path:
    """Write a file, and the folders it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
