"""What the paths given to `landmoe-train pack` most likely are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from shlex import quote

from model.tiles import CROP_MAX, TILE_SIZE
from training import geotiffs
from training.rasters import raster_size
from training.shards import PackError
from training.sources import SourceConfig

# A file of a USGS delivery has one band: PRODUCT_SR_B1.TIF, and beside it PRODUCT_QA_PIXEL.TIF and others.
_BAND = re.compile(r"(?P<product>.+)_SR_B\d\.TIFF?", re.IGNORECASE)

Size = tuple[int, int]  # height, width in px


def detect_all(paths: Sequence[Path]) -> list[SourceConfig]:
    """Sources for several paths, each with a name of its own: those of one name get their folders' before it.

    Raises:
        PackError: as `detect`, or a file or folder came twice.
    """
    found = [source for path in paths for source in detect(path)]
    times = Counter(source.path for source in found)
    if twice := next((path for path, number in times.items() if number > 1), None):
        raise PackError(f"{twice} is given twice")
    names = _distinct([source.path for source in found])
    return [source.model_copy(update={"name": name}) for source, name in zip(found, names, strict=True)]


def detect(path: Path) -> list[SourceConfig]:
    """Sources for a path: an `.npz` set, a scene, or a folder in one of the known layouts.

    A folder `images/` is BigEarthNet's layout; a folder of `.npz` files gives a source for each. Of other
    folders every file that can be read is looked at: those larger than a tile are scenes, each a source; the
    rest is EuroSAT's layout where most are smaller than the network's input and in class folders, else tiles.

    Raises:
        PackError: nothing of that kind is there, or only single bands as USGS delivers them.
    """
    if path.suffix.lower() == ".npz":
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="npz")]
    if path.is_file():
        is_scene = _is_scene(raster_size(path))
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="scene" if is_scene else "folder")]
    if not path.is_dir():
        raise PackError(f"{path} does not exist")
    if (path / "images").is_dir():
        return [SourceConfig(name=_name(path), path=path.resolve(), kind="bigearthnet")]
    sets = sorted(path.glob("*.npz"))
    if sets:
        return [source for p in sets for source in detect(p)]
    files = geotiffs.find(path)
    if not files:
        raise PackError(
            f"{path}: expected GeoTIFFs (.tif, .tiff), .npz files, or a folder images/; found none"
        )
    _refuse_single_bands(files)
    return _of_folder(path, {file: raster_size(file) for file in files})


def _of_folder(folder: Path, sizes: dict[Path, Size | None]) -> list[SourceConfig]:
    """Scenes one by one, and all else, also what cannot be read and is reported later, as one source."""
    scenes = [file for file, size in sizes.items() if _is_scene(size)]
    sources = [SourceConfig(name=_name(file), path=file.resolve(), kind="scene") for file in scenes]
    if len(scenes) == len(sizes):
        return sources
    tiles = {file: size for file, size in sizes.items() if size and not _is_scene(size)}
    in_classes = [file for file, size in tiles.items() if min(size) < TILE_SIZE and file.parent != folder]
    rest = SourceConfig(
        name=_name(folder),
        path=folder.resolve(),
        kind="eurosat" if len(in_classes) > len(tiles) / 2 else "folder",
        exclude=tuple(file.relative_to(folder) for file in scenes),
    )
    return [*sources, rest]


def _is_scene(size: Size | None) -> bool:
    return size is not None and min(size) >= TILE_SIZE and max(size) > CROP_MAX


def _refuse_single_bands(files: Sequence[Path]) -> None:
    """A delivery beside the file that was stacked of it is fine: its bands are skipped, with the reason."""
    products = {(file.parent, match["product"]) for file in files if (match := _BAND.fullmatch(file.name))}
    if products and all(any(_of_product(file, *product) for product in products) for file in files):
        folder = min(products)[0]
        more = f" (and {len(products) - 1} more)" if len(products) > 1 else ""
        raise PackError(
            f"{folder}{more} is a USGS delivery, one file per band; `landmoe stack {quote(str(folder))} -o "
            "scene.tif` makes one file of its seven bands, with the time: pack that"
        )


def _of_product(file: Path, folder: Path, product: str) -> bool:
    return file.parent == folder and file.name.startswith(f"{product}_")


def _distinct(paths: Sequence[Path]) -> list[str]:
    """Names for paths: the last part, with as many folders before it as tell those of one name apart."""
    names = [_name(path) for path in paths]
    for name in [name for name, times in Counter(names).items() if times > 1]:
        same = [i for i, other in enumerate(names) if other == name]
        for folders in range(1, max(len(paths[i].parts) for i in same)):
            longer = [_name(paths[i], folders) for i in same]
            if len(set(longer)) == len(same):
                for i, new in zip(same, longer, strict=True):
                    names[i] = new
                break
    taken: set[str] = set()
    for i, name in enumerate(names):  # a.tif and a.tiff in one folder
        names[i] = next(new for n in count(1) if (new := f"{name}-{n}" if n > 1 else name) not in taken)
        taken.add(names[i])
    return names


def _name(path: Path, folders: int = 0) -> str:
    """The path's last part, some folders before it, in the characters that a source name may have."""
    path = path.resolve()
    last = path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "_".join([*path.parent.parts[::-1][:folders][::-1], last]))
