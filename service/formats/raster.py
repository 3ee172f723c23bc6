"""GeoTIFF of a classified scene: a pixel for each window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from model.windows import TILE_SIZE
from service.errors import RequestError
from service.formats import Head, Item
from service.formats.palette import palette
from service.http.spool import SpoolFile
from service.rasters.georeference import Georeference

MAX_BYTES = 512_000_000  # of the raster in memory: 43 classes of 2.9 million windows
NO_CLASS = 65_535
NO_CLASS_SMALL = 255  # where the classes fit into 8 bits


class Grid(NamedTuple):
    """The windows of a scene: their rows and columns, px from one to the next, the scene's place."""

    rows: int
    cols: int
    stride: int
    place: Georeference | None


class RasterWriter:
    """A GeoTIFF of the windows of one scene, in the scene's CRS.

    A pixel lies at the centre of its window and is as wide as the stride. `geotiff-classes` has one band with
    the index of the most probable label, and a colour for each of up to 255; `geotiff-probabilities` one
    float32 band for each label. Tags have the labels, the probe and the model's digest. Windows that were
    skipped or failed are nodata.

    Raises:
        RequestError: `too-large`, more than `MAX_BYTES` of pixels.
    """

    def __init__(self, file: SpoolFile, head: Head, grid: Grid, *, classes: bool) -> None:
        labels = head.labels or ()
        self._file, self._head, self._grid, self._labels, self._classes = file, head, grid, labels, classes
        small = len(labels) <= NO_CLASS_SMALL
        bands = 1 if classes else len(labels)
        size = grid.rows * grid.cols * bands * 4
        if size > MAX_BYTES:
            raise RequestError(
                "too-large",
                f"{grid.rows} x {grid.cols} windows with {bands} bands take {size:,} bytes as GeoTIFF; "
                f"expected at most {MAX_BYTES:,}: send a larger stride, or format=parquet",
            )
        self._nodata = float("nan") if not classes else NO_CLASS_SMALL if small else NO_CLASS
        dtype = np.float32 if not classes else np.uint8 if small else np.uint16
        self._pixels: NDArray[np.generic] = np.full((bands, grid.rows, grid.cols), self._nodata, dtype)

    def add(self, items: Sequence[Item]) -> None:
        """Sets pixels."""
        for item in items:
            if (found := item.get("probabilities")) is not None:
                self._pixels[:, item["row"], item["col"]] = np.argmax(found) if self._classes else found

    def finish(self, summary: dict[str, int]) -> None:
        """Writes the file."""
        grid, place = self._grid, self._grid.place
        where = (
            {} if place is None else {"crs": rasterio.CRS.from_wkt(place.wkt), "transform": _transform(grid)}
        )
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                count=len(self._pixels),
                height=grid.rows,
                width=grid.cols,
                dtype=self._pixels.dtype,
                nodata=self._nodata,
                compress="deflate",
                interleave="band",
                BIGTIFF="IF_SAFER",
                **where,
            ) as dataset:
                if self._pixels.dtype == np.uint8:  # a table for 16 bits would take 400 kB
                    dataset.write_colormap(1, dict(enumerate(palette(self._labels))))
                dataset.write(self._pixels)
                names = ("class",) if self._classes else self._labels
                for band, name in enumerate(names, start=1):
                    dataset.set_band_description(band, name)
                dataset.update_tags(
                    LABELS=json.dumps(self._labels),
                    PROBE=self._head.fields["probe"],
                    MODEL_DIGEST=self._head.fields["model"]["digest"],
                    SUMMARY=json.dumps(summary),
                )
            self._file.write(memory.getbuffer())

    def abandon(self) -> None:
        """Holds nothing but pixels."""


def _transform(grid: Grid) -> rasterio.Affine:
    """Of the scene's, moved by half of what a window is larger than a pixel, and scaled."""
    assert grid.place is not None  # noqa: S101  # asked for scenes with a place only
    margin = (TILE_SIZE - grid.stride) / 2
    a, b, c, d, e, f = grid.place.transform
    scaled = (a * grid.stride, b * grid.stride, d * grid.stride, e * grid.stride)
    return rasterio.Affine(*scaled[:2], c + (a + b) * margin, *scaled[2:], f + (d + e) * margin)
