"""GeoTIFF folders and scenes as sources of tiles, prepared exactly as the service prepares an upload."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from model import metadata, tiles
from model.metadata import Acquisition, MetadataError
from model.tile_errors import TileError, TileWarning
from training import listing as listings
from training.listing import Listed, Listing
from training.rasters import Header, centre, open_raster, read_header, read_pixels, tag_time
from training.sources import Sample, Skipped, SourceConfig, Warned

SUFFIXES = (".tif", ".tiff")

# BigEarthNet patch names: S2A_MSIL2A_20170613T101031_11_66. The hour lost its leading zero in some (T94031).
_BIGEARTHNET_TIME = re.compile(r"_(\d{4})(\d{2})(\d{2})T(\d{5,6})_")


def find(folder: Path) -> list[Path]:
    """GeoTIFFs of a folder and below, by their names, in a fixed order."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()
    )


def files(folder: Path, source: SourceConfig) -> list[Path]:
    """GeoTIFFs of a source, in a fixed order; in BigEarthNet's layout those of `images/`."""
    start = folder / "images" if source.kind == "bigearthnet" and (folder / "images").is_dir() else folder
    if start.is_file():
        return [start]
    excluded = {folder / path for path in source.exclude}
    return [path for path in find(start) if path not in excluded]


def read_tile(
    path: Path, folder: Path, source: SourceConfig, listing: Listing | None = None
) -> Sample | Skipped:
    """One file → one tile, or the reason why not.

    The place is the centre of the file's bounds. Time and labels: BigEarthNet's come from the file name and
    `labels/*.json`, EuroSAT's label is the class folder's name. What the listing says goes before all that.
    """
    said = listings.said(listing, path)
    try:
        with open_raster(path) as raster:
            header = read_header(raster)
            pixels = read_pixels(raster)
        prepared = _prepared(pixels, header, source, path.name)
        tile = tiles.fit(prepared.dn, prepared.valid, _fit(source, *pixels.shape[1:]))
        tiles.check_valid(tile.valid)
        lat, lon = (
            (said.lat, said.lon)
            if said.lat is not None
            else centre(header, tiles.Window(0, 0, *pixels.shape[1:]))
        )
        when = said.when or (metadata.parse_datetime(source.when) if source.when else None)
        labels = said.labels
        if source.kind == "bigearthnet":
            when = when or bigearthnet_time(path.stem)
            labels = _bigearthnet_labels(path, folder) if labels is None else labels
        elif source.kind == "eurosat" and labels is None and path.parent != folder:
            labels = (path.parent.name,)
    except (RasterioError, OSError, TileError, MetadataError, ValueError) as error:
        return Skipped(str(path), _reason(error))
    return Sample(
        id=path.stem if source.kind == "bigearthnet" else _name_in(folder, path),
        dn=tile.dn,
        when=when,
        lat=lat,
        lon=lon,
        gsd=header.gsd * tile.window.height / tiles.TILE_SIZE,
        group=path.stem,
        labels=labels or (),
        warned=_warned(path, prepared.warnings),
    )


def read_scene(
    path: Path, source: SourceConfig, listing: Listing | None = None
) -> Iterator[Sample | Skipped]:
    """Windows of a multi-band scene every `stride` px, read strip by strip; each has its own place.

    Units are decided once, on a sample of the whole scene, so that all windows are on one scale. Time and
    labels are the listing's; a time may also be the source's or that of the file's tags, and a position in
    the listing is that of all windows where the file is not georeferenced.
    """
    said = listings.said(listing, path)
    try:
        when = said.when or (metadata.parse_datetime(source.when) if source.when else None)
        with open_raster(path) as raster:
            said = replace(said, when=when or tag_time(raster))
            header = read_header(raster)
            units, warnings = _scene_units(raster, header, source, path.name)
            row = -1
            for grid in tiles.windows(raster.height, raster.width, source.stride):
                if grid.row != row:
                    row = grid.row
                    rows = tiles.Window(grid.window.row_off, 0, tiles.TILE_SIZE, raster.width)
                    strip = read_pixels(raster, rows)
                at = np.s_[:, :, grid.window.col_off : grid.window.col_off + tiles.TILE_SIZE]
                for sample in _window_sample(strip[at], path, header, units, grid.window, said):
                    yield replace(sample, warned=_warned(path, warnings))
    except (RasterioError, OSError, TileError, MetadataError) as error:
        yield Skipped(str(path), _reason(error))


def read_thinned(source: SourceConfig, side: int) -> tuple[NDArray[np.uint16], tuple[int, int]]:
    """A scene thinned to `side` px at most, DN (7, height, width), for a picture; its own height and width.

    Raises:
        RasterioError: it cannot be read.
        TileError: it is no scene of the seven bands.
    """
    with open_raster(source.path) as raster:
        step = max(1.0, max(raster.height, raster.width) / side)
        shape = max(1, int(raster.height / step)), max(1, int(raster.width / step))
        pixels = read_pixels(raster, shape=shape)
        prepared = _prepared(pixels, read_header(raster), source, source.path.name)
        return prepared.dn, (raster.height, raster.width)


def bigearthnet_time(name: str) -> Acquisition | None:
    """Date and time in a BigEarthNet patch name, UTC.

    It is that of the paired Sentinel-2 patch, not of the Landsat image. The published network was trained
    with it, Landsat's own is not distributed, and both satellites pass in mid-morning in the same season: it
    stands in for the Landsat time.
    """
    match = _BIGEARTHNET_TIME.search(name)
    if match is None:
        return None
    year, month, day, clock = match.groups()
    clock = clock.zfill(6)
    return metadata.parse_datetime(f"{year}-{month}-{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z")


def label_file(path: Path, folder: Path) -> Path | None:
    """The JSON file beside a BigEarthNet tile: `labels/NAME_labels_metadata.json` or `labels/NAME.json`."""
    for name in (f"{path.stem}_labels_metadata.json", f"{path.stem}.json"):
        candidate = folder / "labels" / name
        if candidate.is_file():
            return candidate
    return None


def _bigearthnet_labels(path: Path, folder: Path) -> tuple[str, ...]:
    """CORINE names of a tile; none without a label file."""
    file = label_file(path, folder)
    if file is None:
        return ()
    try:
        return tuple(map(str, json.loads(file.read_text())["labels"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file.name}: no list 'labels' ({error})") from error


def _name_in(folder: Path, path: Path) -> str:
    """Path below the folder without its ending; the bare name where the source is a single file."""
    return path.relative_to(folder).with_suffix("").as_posix() if path != folder else path.stem


def _fit(source: SourceConfig, height: int, width: int) -> str | None:
    """How a tile becomes 40 x 40 px: as the source says, else by its own size."""
    small = min(height, width) < tiles.TILE_SIZE and max(height, width) <= tiles.CROP_MAX
    return "resize" if source.fit is None and small and source.kind != "bigearthnet" else source.fit


def _prepared(pixels: NDArray[Any], header: Header, source: SourceConfig, name: str) -> tiles.Prepared:
    # EuroSAT-Landsat tiles carry a surplus band after the seven.
    bands = source.bands or ("1,2,3,4,5,6,7" if source.kind == "eurosat" and len(pixels) > 7 else None)
    return tiles.prepare(
        pixels,
        nodata=header.nodata,
        descriptions=header.descriptions,
        alpha=header.alpha,
        bands=bands,
        units=source.units,
        file_scales=header.scales,
        file_offsets=header.offsets,
        source=name,
    )


def _scene_units(
    raster: Any, header: Header, source: SourceConfig, name: str
) -> tuple[SourceConfig, tuple[TileWarning, ...]]:
    """The source with its units decided, by a thinned reading of the whole scene; and what is odd there."""
    step = max(1, max(raster.height, raster.width) // 1000)
    shape = max(1, raster.height // step), max(1, raster.width // step)
    found = _prepared(read_pixels(raster, shape=shape), header, source, name)
    if found.units == "scale_offset":
        return source, found.warnings
    return source.model_copy(update={"units": found.units}), found.warnings


def _window_sample(
    pixels: NDArray[Any], path: Path, header: Header, source: SourceConfig,
    window: tiles.Window, said: Listed,
) -> Iterator[Sample]:  # fmt: skip
    try:
        prepared = _prepared(pixels, header, source, path.name)
    except TileError as error:
        if error.code == "empty-tile":  # the fill around a scene is no error
            return
        raise
    lat, lon = centre(header, window)
    if lat is None:
        lat, lon = said.lat, said.lon
    yield Sample(
        id=f"{path.stem}_{window.row_off:04d}_{window.col_off:04d}",
        at=(window.row_off, window.col_off),
        dn=prepared.dn,
        when=said.when,
        lat=lat,
        lon=lon,
        gsd=header.gsd,
        group=path.stem,
        labels=said.labels or (),
    )


def _warned(path: Path, warnings: Sequence[TileWarning]) -> tuple[Warned, ...]:
    return tuple(Warned(str(path), warning.code, warning.message) for warning in warnings)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
