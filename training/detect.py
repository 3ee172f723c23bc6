"""What a path given to `landmoe-train pack` most likely is."""

from __future__ import annotations

import re
from pathlib import Path

from model.tiles import CROP_MAX, TILE_SIZE
from training.geotiffs import SUFFIXES
from training.rasters import raster_size
from training.shards import PackError
from training.sources import Kind, SourceConfig


def detect(path: Path) -> list[SourceConfig]:
    """Sources for a path: an `.npz` set, a scene, or a folder in one of the known layouts.

    A folder `images/` is BigEarthNet's layout; class folders of tiles smaller than the network's input are
    EuroSAT's; other folders hold tiles, or scenes where the first file is larger than a tile; a folder of
    `.npz` files gives a source for each.

    Raises:
        PackError: nothing of that kind is there.
    """
    if path.suffix.lower() == ".npz":
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="npz")]
    if path.is_file():
        return [_of_file(path)]
    if not path.is_dir():
        raise PackError(f"{path} does not exist")
    if (path / "images").is_dir():
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="bigearthnet")]
    sets = sorted(path.glob("*.npz"))
    if sets:
        return [source for p in sets for source in detect(p)]
    first = next((p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES), None)
    if first is None:
        raise PackError(
            f"{path}: expected GeoTIFFs (.tif, .tiff), .npz files, or a folder images/; found none"
        )
    height, width = raster_size(first) or (0, 0)
    if max(height, width) > CROP_MAX:
        return [_of_file(p) for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES]
    small = min(height, width) < TILE_SIZE
    if small and first.parent != path:
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="eurosat", fit="resize")]
    return [
        SourceConfig(name=_name(path), path=path.resolve(), kind="folder", fit="resize" if small else None)
    ]


def _of_file(path: Path) -> SourceConfig:
    height, width = raster_size(path) or (0, 0)
    kind: Kind = "scene" if min(height, width) >= TILE_SIZE and max(height, width) > CROP_MAX else "folder"
    return SourceConfig(name=_name(path), path=path.resolve(), kind=kind)


def _name(path: Path) -> str:
    """The path's last part, in the characters that a source name may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.resolve().stem if path.is_file() else path.resolve().name)
