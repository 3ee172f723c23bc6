"""What is to be packed: the sources' files, in shards whose names change with all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.config import PREPROCESSING_VERSION, HourConvention
from training import geotiffs, listing, shards, sources
from training.listing import Listing, ListingError
from training.shards import PackError
from training.sources import Skipped, SourceConfig

READING = 4  # raise where the same file would give other tiles than before: its shard is packed anew
FILES_PER_SHARD = 2048  # about 46 MB of pixels: a unit of parallel work, and of what an interruption loses


@dataclass(frozen=True)
class Job:
    """The work that makes one shard."""

    name: str
    source: SourceConfig
    items: tuple[Path, ...]


def plan(
    configs: Sequence[SourceConfig], root: Path, hour_convention: HourConvention
) -> tuple[list[Job], list[Skipped]]:
    """The shards that all sources make, and the names in lists of tiles that no source has.

    Raises:
        PackError: a source or its list is missing or empty, or it has an option that its kind has no use for.
    """
    jobs: list[Job] = []
    listed: dict[Path, Listing] = {}
    found: dict[Path, set[str]] = {}
    for source in configs:
        _check_options(source)
        path = root / source.path
        if not path.exists():
            raise PackError(f"source {source.name}: {path} does not exist")
        lines = read_list(source, root)
        items, names = _items(path, source, lines)
        if source.listing and lines is not None:
            listed[source.listing] = lines
            found.setdefault(source.listing, set()).update(names)
        elif not items:
            raise PackError(f"source {source.name}: no GeoTIFF found in {path}")
        jobs += _shards(source, items, root, hour_convention)
    missing = [
        Skipped(name, f"listed in {file.name}, but no source has a file or tile of that name")
        for file, lines in listed.items()
        for name in lines
        if name not in found[file]
    ]
    if not jobs:
        raise PackError(f"none of the tiles that {', '.join(map(str, listed))} lists is in any source")
    return jobs, missing


def read_list(source: SourceConfig, root: Path) -> Listing | None:
    """The source's list of tiles, if it has one.

    Raises:
        PackError: it cannot be used.
    """
    try:
        return listing.read_listing(root / source.listing) if source.listing else None
    except ListingError as error:
        raise PackError(f"source {source.name}: {error}") from error


def _check_options(source: SourceConfig) -> None:
    """Refuses options that say nothing about a source of its kind, and so would be ignored."""
    if source.kind == "npz":
        given = {"units": source.units not in ("auto", "dn"), "bands": source.bands, "fit": source.fit}
        if useless := [name for name, value in given.items() if value]:
            raise PackError(
                f"source {source.name}: {', '.join(useless)} cannot be applied to an .npz set, whose tiles "
                "are DN of the seven bands, 40 px a side"
            )
        if source.stitch and source.listing:
            raise PackError(
                f"source {source.name}: a list cannot be applied to an .npz set that is stitched, since the "
                "windows that are cut anew are none of its tiles"
            )
    elif source.stitch:
        raise PackError(f"source {source.name}: only tiles of an .npz set can be stitched")
    if source.kind == "scene" and source.fit:
        raise PackError(f"source {source.name}: fit cannot be applied to a scene, which is cut into windows")


def _items(path: Path, source: SourceConfig, lines: Listing | None) -> tuple[list[Path], set[str]]:
    """The files of a source that are to be read, and the names in its list that they have."""
    files = [path] if source.kind in ("npz", "scene") else geotiffs.files(path, source)
    if lines is None:
        return files, set()
    if source.kind == "npz":
        names = lines.keys() & map(listing.without_ending, sources.npz_names(path))
        return (files if names else []), names
    by_name: dict[str, list[Path]] = {}
    for file in files:
        if line := listing.line(lines, file):
            by_name.setdefault(line.name, []).append(file)
    return [file for name in lines for file in by_name.get(name, [])], set(by_name)


def _shards(
    source: SourceConfig, items: Sequence[Path], root: Path, hour_convention: HourConvention
) -> Iterator[Job]:
    for start in range(0, len(items), FILES_PER_SHARD):
        chunk = tuple(items[start : start + FILES_PER_SHARD])
        key = _key(source, root, chunk, hour_convention)
        yield Job(f"{source.name}-{start // FILES_PER_SHARD:05d}-{key}", source, chunk)


def _key(source: SourceConfig, root: Path, items: Sequence[Path], hour_convention: HourConvention) -> str:
    """Changes whenever the shard's content would: settings, rules, or a file's size or time of change."""
    read = [*items, *([root / source.listing] if source.listing else [])]
    if source.kind == "bigearthnet":
        labels = (geotiffs.label_file(path, root / source.path) for path in items)
        read += [path for path in labels if path]
    what = [
        shards.FORMAT_VERSION,
        READING,
        PREPROCESSING_VERSION,
        hour_convention,
        source.model_dump_json(exclude={"exclude"}),  # the chunk says which files are left
        [(path.name, *_stat(path)) for path in read],
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return -1, 0
    return found.st_size, found.st_mtime_ns
