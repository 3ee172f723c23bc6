"""A GeoTIFF that is packed: its header, its pixels under its own mask, and where they lie."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as reproject
from rasterio.windows import Window as RasterWindow

from model import metadata
from model.metadata import Acquisition, MetadataError
from model.tiles import Window

METRES_PER_DEGREE = 111_320.0  # along a meridian, for pixel sizes of rasters in degrees


class Header(NamedTuple):
    """What a raster says of itself."""

    descriptions: tuple[str | None, ...]
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    crs: Any
    transform: Any
    gsd: float  # metres, NaN unknown
    alpha: bool  # whether the last band calls itself alpha


def open_raster(path: Path) -> Any:
    """The open rasterio dataset of a GeoTIFF.

    Raises:
        RasterioError: no file, or one that cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a tile without a place is welcome
        return rasterio.open(path, driver="GTiff")


def read_header(raster: Any) -> Header:
    """The header of an open dataset."""
    a, b, d, e = raster.transform.a, raster.transform.b, raster.transform.d, raster.transform.e
    size = math.sqrt(abs(a * e - b * d))
    if raster.crs is None:
        gsd = math.nan
    elif raster.crs.is_geographic:
        gsd = size * METRES_PER_DEGREE
    else:
        gsd = size * raster.crs.linear_units_factor[1]
    alpha = raster.count > 1 and raster.colorinterp[-1] == ColorInterp.alpha
    return Header(
        raster.descriptions,
        raster.nodata,
        raster.scales,
        raster.offsets,
        raster.crs,
        raster.transform,
        gsd,
        alpha,
    )


def read_pixels(
    raster: Any, window: Window | None = None, shape: tuple[int, int] | None = None
) -> NDArray[Any]:
    """Pixels of an open dataset, in its own type; those that its mask hides are 0, as in the service.

    Args:
        raster: the dataset.
        window: the part to read; None = all.
        shape: height and width to thin it to; None = as it is.

    Returns:
        (bands, height, width).

    Raises:
        RasterioError: the pixels or the mask are damaged.
    """
    part = window and RasterWindow(window.col_off, window.row_off, window.width, window.height)
    pixels: NDArray[Any] = raster.read(window=part, out_shape=shape and (raster.count, *shape))
    # One mask for all bands. A band that says it is alpha is looked at where the seven are chosen.
    if raster.mask_flag_enums[0] == [MaskFlags.per_dataset]:
        pixels[:, raster.read_masks(1, window=part, out_shape=shape) == 0] = 0
    return pixels


def centre(header: Header, window: Window) -> tuple[float | None, float | None]:
    """Latitude and longitude (WGS 84 degrees) of a window's centre, None without georeferencing.

    As in the service: None also where the system does not reach, and longitudes of 0 to 360 become those of
    -180 to 180.
    """
    if header.crs is None:
        return None, None
    x, y = header.transform @ (window.col_off + window.width / 2, window.row_off + window.height / 2)
    (lon,), (lat,) = reproject(header.crs, "EPSG:4326", [x], [y])
    if not (math.isfinite(lon) and abs(lat) <= metadata.MAX_LATITUDE):
        return None, None
    if abs(lon) > metadata.MAX_LONGITUDE:
        lon = (lon + 180) % 360 - 180
    return lat, lon


def tag_time(raster: Any) -> Acquisition | None:
    """When a scene was taken, as its tags say; None where none can be read.

    `landmoe stack` writes both: TIFFTAG_DATETIME has no zone, and UTC is assumed, as `datetime_source=tag` of
    the service does; in files of other programs it may be the time of writing.
    """
    try:
        tags = raster.tags()
    except UnicodeDecodeError:  # no text, then
        return None
    for name, parse in (
        ("ACQUISITION_DATETIME", metadata.parse_datetime),
        ("TIFFTAG_DATETIME", metadata.parse_tiff_datetime),
    ):
        if name in tags:
            with suppress(MetadataError):
                return parse(tags[name])
    return None


def raster_size(path: Path) -> tuple[int, int] | None:
    """Height and width in pixels; None for an unreadable file, which packing will report."""
    try:
        with open_raster(path) as raster:
            return raster.height, raster.width
    except (RasterioError, OSError):
        return None
