"""Arrays → GeoTIFFs, as the service takes them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import tastes_like_gdal

from model.bands import BANDS
from service.clients.errors import UnusableTileError
from service.nodata import NONE


def written(given: NDArray[Any], *, crs: Any, transform: Any, nodata: float | str | None) -> bytes:
    """The array as a GeoTIFF; what a masked one hides is nodata, or 0, which is no value of a band.

    The arguments are what `service.clients.tiles.Tile` has by these names.

    Raises:
        UnusableTileError: it is no such array, or does not go with what is said of it.
    """
    declared = _declared(nodata)
    hidden = 0 if declared is None else declared
    pixels = given.filled(hidden) if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
    if pixels.ndim != 3 or pixels.dtype.kind not in "uif":
        raise UnusableTileError(
            f"the array is {pixels.dtype} {pixels.shape}; expected numbers (7, height, width)"
        )
    if pixels.shape[2] == len(BANDS) != pixels.shape[0]:
        raise UnusableTileError(
            f"the array is {pixels.shape}, its bands last; expected (7, height, width), as "
            "numpy.moveaxis(array, -1, 0) makes it"
        )
    if pixels.dtype == np.float16:  # TIFF has it, GDAL before 3.11 does not
        pixels = pixels.astype(np.float32)
    count, height, width = pixels.shape
    place = _place(crs, transform)
    try:
        with warnings.catch_warnings(), MemoryFile() as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                nodata=declared,
                **place,
            ) as dataset:
                dataset.write(pixels)
            return bytes(memory.read())
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, ValueError, TypeError) as error:
        raise UnusableTileError(f"the array cannot be written as a GeoTIFF: {error}") from error


def _place(crs: Any, transform: Any) -> dict[str, Any]:
    """CRS and transform of an array, as rasterio takes them."""
    if transform is None:
        if crs is not None:
            raise UnusableTileError(
                f"the array has the CRS {str(crs)[:60]} and no transform; expected both, or neither"
            )
        return {}
    numbers = tuple(transform)[:6]
    if len(numbers) < 6 or tastes_like_gdal(numbers):
        raise UnusableTileError(
            f"transform is {numbers}, of GDAL's order or too short; expected (a, b, c, d, e, f) with "
            "x = a col + b row + c, y = d col + e row + f, as affine.Affine.from_gdal makes it"
        )
    place = {"transform": rasterio.Affine(*numbers)}
    return place if crs is None else {**place, "crs": crs}


def _declared(nodata: float | str | None) -> float | None:
    """The value that the file of an array declares."""
    if nodata is None or nodata == NONE:
        return None
    try:
        return float(nodata)
    except (TypeError, ValueError) as error:
        raise UnusableTileError(f"nodata is {nodata!r}; expected a number, or {NONE!r}") from error
