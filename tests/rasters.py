"""Tiny georeferenced rasters, made by code, for whichever test needs a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import Affine

Pixels = npt.NDArray[Any]

# A place in zone 33N, near Salzburg; any will do.
ORIGIN = (386_355.0, 5_293_245.0)


def dn_pixels(height: int = 41, width: int = 41, *, count: int = 7, seed: int = 0) -> Pixels:
    """uint16 (count, height, width): smooth ground plus noise, on the scale of surface reflectance DN."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:height, 0:width] / 40.0
    level = 8_500 + 900 * np.arange(count)[:, None, None]
    ground = 700 * np.sin(3 * rows + seed) + 500 * np.cos(5 * cols)
    return np.rint(level + ground + rng.normal(0, 120, (count, height, width))).astype(np.uint16)


def geotiff(
    pixels: Pixels | None = None,
    *,
    crs: str | None = "EPSG:32633",
    origin: tuple[float, float] = ORIGIN,
    pixel_size: float = 30.0,
    transform: Affine | None = None,
    nodata: float | None = None,
    descriptions: Sequence[str | None] | None = None,
    scales: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    tags: Mapping[str, str] | None = None,
    mask: Pixels | None = None,
    alpha: bool = False,
    **creation: Any,
) -> bytes:
    """A GeoTIFF of `pixels` (count, height, width), by default a good 41 x 41 tile; no `crs`, no place.

    A `mask` (height, width), 0 where pixels are hidden, is inside the file. With `alpha` the last band calls
    itself so.
    """
    pixels = dn_pixels() if pixels is None else pixels
    count, height, width = pixels.shape
    transform = transform or Affine(pixel_size, 0.0, origin[0], 0.0, -pixel_size, origin[1])
    place = {"crs": crs, "transform": transform} if crs else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                nodata=nodata,
                **place,
                **creation,
            ) as dataset:
                if alpha:
                    dataset.colorinterp = (*dataset.colorinterp[:-1], ColorInterp.alpha)
                dataset.write(pixels)
                for index, description in enumerate(descriptions or (), start=1):
                    if description is not None:
                        dataset.set_band_description(index, description)
                if scales is not None:
                    dataset.scales = scales
                if offsets is not None:
                    dataset.offsets = offsets
                if tags:
                    dataset.update_tags(**tags)
                if mask is not None:
                    dataset.write_mask(mask)
            return bytes(memory.read())


def read_tags(data: bytes) -> dict[str, str]:
    """The file's tags."""
    with rasterio.MemoryFile(data) as memory, memory.open() as dataset:
        return dict(dataset.tags())
