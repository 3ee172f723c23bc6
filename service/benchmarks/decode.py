"""How long it takes from a file's bytes to its pixels, CRS and centre: by reader and by layout of the file.

Files are the sample tile, 41 x 41 px with seven bands of uint16, as a tool may write it; its pixels hardly
compress, as those of real tiles.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import pyproj
import rasterio

from model.measurement import Measure, Of, Record, interleave, of
from service import sample
from service.rasters.geotiff import Reader

PLAIN, GDAL, TIFFFILE = "plain", "rasterio", "tifffile"
NAIVE = "rasterio, naive"
_SQUARES = {"tiled": True, "blockxsize": 16, "blockysize": 16}
# What rasterio is told when it writes the sample tile; its own default is strips, by pixel, uncompressed.
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "strips": {},
    "strips, by band": {"interleave": "band"},
    "strips, big endian": {"ENDIANNESS": "BIG"},
    "tiles": _SQUARES,
    "strips, deflate": {"compress": "deflate"},
    "strips, deflate, predictor": {"compress": "deflate", "predictor": 2},
    "tiles, deflate, predictor": {"compress": "deflate", "predictor": 2, **_SQUARES},
    "strips, LZW": {"compress": "lzw"},
    "strips, LZW, predictor": {"compress": "lzw", "predictor": 2},
}

# In turn: of one file alone the CPU would learn where which symbol comes.
_FILES = 64

Decode = Callable[[bytes], object]


def run(*, rounds: int, seconds: float, partial: Path | None = None) -> dict[str, Any]:
    """Measures.

    Args:
        rounds: of all measurements.
        seconds: each measurement of a round takes.
        partial: see `interleave`.

    Returns:
        A record (measurement.py). Rows of a `reader` and `layout` have `us_per_tile` (median of a round),
        `us_best` (the quickest of a round), and `times_rasterio`: how much faster than rasterio, opened as
        the service does, in the same round.
    """
    readers: dict[str, Decode] = {PLAIN: _plain, GDAL: _gdal, NAIVE: _naive}
    absent: dict[str, str] = {}
    try:
        readers[TIFFFILE] = _tifffile(import_module("tifffile"))
    except ImportError:
        absent[TIFFFILE] = "it is not installed; pip install tifffile"
    measurements: dict[Of, Measure] = {}
    for layout, creation in LAYOUTS.items():
        files = [_written(creation, seed) for seed in range(_FILES)]
        for name, decode in readers.items():
            try:
                decode(files[0])
                decode(files[0])  # by now the CRS is known
            except _CannotError as error:
                absent[f"{name}, {layout}"] = str(error)
                continue
            measurements[of(reader=name, layout=layout)] = _measure(decode, files, seconds)
    asked = {"seconds": seconds, "side_px": sample.SIDE, "files": _FILES}
    done = interleave(measurements, rounds, settings=asked, partial=partial)
    for each in done:
        for what, figures in each.items():
            gdal = each[tuple((name, GDAL if name == "reader" else value) for name, value in what)]
            figures["times_rasterio"] = gdal["us_per_tile"] / figures["us_per_tile"]
    return Record("decode", asked, done, absent).to_json()


class _CannotError(Exception):
    """A reader that has nothing for a layout."""


def _measure(decode: Decode, files: Sequence[bytes], seconds: float) -> Measure:
    def measure() -> dict[str, float]:
        for data in files:
            decode(data)
        times: list[float] = []
        turns = cycle(files)
        end = time.perf_counter() + seconds
        while (before := time.perf_counter()) < end or not times:
            decode(next(turns))
            times.append(time.perf_counter() - before)
        times.sort()
        return {"us_per_tile": times[len(times) // 2] * 1e6, "us_best": times[0] * 1e6}

    return measure


def _plain(data: bytes) -> object:
    with Reader(data, whole=True) as reader:
        return reader.read(), reader.header.crs, reader.header.center


def _gdal(data: bytes) -> object:
    with Reader(data) as reader:  # in parts, which GDAL alone reads
        return reader.read(), reader.header.crs, reader.header.center


def _naive(data: bytes) -> object:
    """As one writes it who does not think of speed."""
    with rasterio.MemoryFile(data) as memory, memory.open() as dataset:
        left, bottom, right, top = dataset.bounds
        transformer = pyproj.Transformer.from_crs(dataset.crs.to_wkt(), "EPSG:4326", always_xy=True)
        return (
            dataset.read(),
            dataset.crs.to_string(),
            transformer.transform((left + right) / 2, (bottom + top) / 2),
        )


@cache
def _transformer(code: int) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(code, 4326, always_xy=True)


def _tifffile(tifffile: ModuleType) -> Decode:
    """With its own parsing of GeoKeys; the CRS is a number, projections are kept as ours are."""

    def decode(data: bytes) -> object:
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = file.pages[0]
                pixels, keys = page.asarray(), file.geotiff_metadata
        except ValueError as error:  # a codec that another package would bring
            raise _CannotError(" ".join(str(error).split())) from error
        if page.planarconfig == tifffile.PLANARCONFIG.CONTIG:
            pixels = pixels.transpose(2, 0, 1).copy()
        code = int(keys["ProjectedCSTypeGeoKey"])
        (right, down, _), (*_, x, y, _) = keys["ModelPixelScale"], keys["ModelTiepoint"]
        _, height, width = pixels.shape
        return pixels, code, _transformer(code).transform(x + right * width / 2, y - down * height / 2)

    return decode


def _written(creation: Mapping[str, Any], seed: int = 0) -> bytes:
    """A sample tile in another layout."""
    with rasterio.MemoryFile(sample.make(seed)) as memory, memory.open() as source:
        place = {"crs": source.crs, "transform": source.transform, "nodata": source.nodata}
        pixels = source.read()
        count, height, width = pixels.shape
        with rasterio.MemoryFile() as written:
            with written.open(
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                **place,
                **creation,
            ) as target:
                target.write(pixels)
                target.descriptions = source.descriptions
            return bytes(written.read())
