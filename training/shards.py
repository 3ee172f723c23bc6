"""The packed form of tiles: folders of plain `.npy` columns that are memory-mapped, and a manifest.

    PACKED/manifest.json           what was packed, from what, with which settings
    PACKED/skipped.csv             every file that gave no tile, and why
    PACKED/warnings.csv            files whose values are odd, and how
    PACKED/splits.csv              every tile with its place, split and position
    PACKED/shards/NAME/*.npy       one array per column, one row per tile

No column holds Python objects, so nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import metadata
from model.config import PREPROCESSING_VERSION, HourConvention
from training.sources import Sample, Skipped, Warned

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test", "buffer")  # codes in the column `split`; buffer belongs to none

# Columns written with a shard; `place` and `split` follow once all tiles are known.
COLUMNS = (
    "pixels",
    "encodings",
    "valid_fraction",
    "lat",
    "lon",
    "gsd",
    "b1_estimated",
    "id",
    "group",
    "labels",
    "time",
)


class PackError(Exception):
    """A packed set that is missing, damaged, or not what the command expects."""


@dataclass(frozen=True)
class Shard:
    """One folder of columns, opened lazily and memory-mapped."""

    path: Path
    source: str
    count: int

    def column(self, name: str) -> NDArray[Any]:
        """The column as a read-only memory map, one row per tile.

        `pixels` uint16 (N, 7, S, S): DN, zeros and partly zero pixels as in the file. `encodings` float32
        (N, 4, 2): week, hour, lat, lon as (sin, cos), zeros where unknown. `valid_fraction` float32, 0 to 1.
        `lat`, `lon` float64 degrees and `gsd` float32 metres, NaN where unknown. `b1_estimated` bool. `id`,
        `group`, `labels` ('|' between several, '' for none) and `time` (ISO 8601, '' unknown) text. `place`
        int32 and `split` uint8, an index into `SPLITS`.

        Raises:
            PackError: it cannot be read, or has another number of rows than the shard has tiles.
        """
        try:
            array: NDArray[Any] = np.load(self.path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PackError(f"{self.path / name}.npy: {error}; pack again") from error
        if len(array) != self.count:
            raise PackError(
                f"{self.path / name}.npy has {len(array)} rows, expected {self.count}; pack again"
            )
        return array


@dataclass(frozen=True)
class PackedSet:
    """A packed set as its manifest describes it."""

    path: Path
    manifest: dict[str, Any]
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Tiles of all shards."""
        return sum(s.count for s in self.shards)

    def column(self, name: str) -> NDArray[Any]:
        """A column of all shards in memory, in the manifest's order. Not meant for `pixels` of large sets."""
        return np.concatenate([s.column(name) for s in self.shards])

    def sources(self) -> NDArray[np.str_]:
        """The source name of every tile."""
        return np.repeat([s.source for s in self.shards], [s.count for s in self.shards])

    @property
    def by_split(self) -> str:
        """How many tiles the splits have that have some, such as `train 20, test 3`."""
        splits = self.manifest["splits"].items()
        return ", ".join(f"{name} {n['tiles']:,}" for name, n in splits if n["tiles"])

    @property
    def hour_convention(self) -> HourConvention:
        """How the hours among the encodings were read."""
        convention: HourConvention = self.manifest["config"]["hour_convention"]
        return convention

    def check_hours(self, convention: HourConvention) -> None:
        """Raises PackError unless hours were encoded as a network of this convention reads them."""
        if self.hour_convention != convention:
            raise PackError(
                f"{self.path} was packed with hour_convention {self.hour_convention}, "
                f"the network was trained with {convention}; pack again"
            )

    def identity(self) -> dict[str, str]:
        """What tells these tiles and their splits from others, wherever the folder lies; JSON-ready."""
        # A shard's name changes with its content.
        names = "\n".join(f"{s.source} {s.path.name} {s.count}" for s in self.shards)
        return {
            "hour_convention": self.hour_convention,
            "shards": _digest(names.encode()),
            "splits": _digest(self.column("split").tobytes()),
        }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def open_packed(path: Path) -> PackedSet:
    """Open the packed set in a folder.

    Raises:
        PackError: there is none, it is not of this program, of another format version, or its tiles were
            prepared otherwise than those that this program serves.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except FileNotFoundError:
        raise PackError(
            f"{path} has no manifest.json: not a packed set, or packing has not finished"
        ) from None
    except ValueError as error:  # of JSON or of UTF-8
        raise PackError(f"{path / 'manifest.json'} is not JSON: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT_VERSION:
        raise PackError(f"{path} has format {found!r}, expected {FORMAT_VERSION}; pack again")
    rules = manifest.get("preprocessing_version")
    if rules != PREPROCESSING_VERSION:
        raise PackError(
            f"{path} was packed by version {rules!r} of the rules of preparation, which are at "
            f"{PREPROCESSING_VERSION} now; pack again"
        )
    try:
        shards = tuple(
            Shard(path / "shards" / s["name"], s["source"], s["count"]) for s in manifest["shards"]
        )
    except (KeyError, TypeError) as error:
        raise PackError(f"{path / 'manifest.json'} is not as `pack` writes it ({error!r})") from error
    return PackedSet(path, manifest, shards)


def write_shard(
    folder: Path, samples: Sequence[Sample], skipped: Sequence[Skipped], hour_convention: HourConvention
) -> None:
    """Write one shard; it appears under its name only when complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if samples:
        for name, array in columns(samples, hour_convention).items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
    # Of a scene once: all of its windows have the same.
    warned = dict.fromkeys(each for s in samples for each in s.warned)
    record = {
        "count": len(samples),
        "skipped": [[s.path, s.reason] for s in skipped],
        "warned": list(warned),
    }
    (partial / "shard.json").write_text(json.dumps(record))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_record(folder: Path) -> tuple[int, list[Skipped], list[Warned]]:
    """Tiles in a finished shard, the files that gave none, and what is odd about others."""
    record = json.loads((folder / "shard.json").read_text())
    return (
        record["count"],
        [Skipped(path, reason) for path, reason in record["skipped"]],
        [Warned(*warned) for warned in record.get("warned", [])],
    )


def save_column(shard: Shard, name: str, array: NDArray[Any]) -> None:
    """Add or replace a column, atomically: readers that have the old one mapped keep it."""
    partial = shard.path / f"{name}.partial.npy"
    np.save(partial, array, allow_pickle=False)
    partial.replace(shard.path / f"{name}.npy")


def columns(samples: Sequence[Sample], hour_convention: HourConvention) -> dict[str, NDArray[Any]]:
    """The columns of a shard, as `Shard.column` describes them, without `place` and `split`."""
    pixels = np.stack([s.dn for s in samples])
    text = {
        "id": [s.id for s in samples],
        "group": [s.group for s in samples],
        "labels": ["|".join(s.labels) for s in samples],
        "time": [_time_text(s) for s in samples],
    }
    encodings = [metadata.encode(s.when, s.lat, s.lon, hour_convention=hour_convention) for s in samples]
    return {
        "pixels": pixels,
        "encodings": np.stack(encodings).astype(np.float32),
        "valid_fraction": (pixels != 0).all(axis=1).mean(axis=(1, 2), dtype=np.float64).astype(np.float32),
        "lat": np.array([np.nan if s.lat is None else s.lat for s in samples], np.float64),
        "lon": np.array([np.nan if s.lon is None else s.lon for s in samples], np.float64),
        "gsd": np.array([s.gsd for s in samples], np.float32),
        "b1_estimated": np.array([s.b1_estimated for s in samples], np.bool_),
        **{name: np.array(values, np.str_) for name, values in text.items()},
    }


def _time_text(sample: Sample) -> str:
    if sample.when is None:
        return ""
    return sample.when.when.strftime("%Y-%m-%dT%H:%M:%SZ" if sample.when.has_hour else "%Y-%m-%d")
