"""A plain GeoTIFF without GDAL: header and pixels as GDAL gives them, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.rasters import known_places, plain_pixels
from service.rasters.gdal_tags import band_tags, datetime_text, nodata_value
from service.rasters.plain_tiff import Content, PlainTiff
from service.rasters.raster_header import Header


def read(data: Content, tiff: PlainTiff) -> tuple[Header, npt.NDArray[Any]] | None:
    """Header and pixels (bands, height, width); None where GDAL must be asked.

    Args:
        data: the whole file.
        tiff: its directory.
    """
    tags = band_tags(tiff.metadata, tiff.bands)
    nodata = None if tiff.nodata is None else nodata_value(tiff.nodata, tiff.dtype)
    datetime = None if tiff.datetime is None else datetime_text(tiff.datetime)
    if (
        tags is None
        or (nodata is None) != (tiff.nodata is None)
        or (datetime is None) != (tiff.datetime is None)
    ):
        return None
    try:
        place = known_places.place(tiff)
    except known_places.UnknownError:
        return None
    pixels = plain_pixels.read(data, tiff)
    if pixels is None:
        return None
    header = Header(
        count=tiff.bands,
        height=tiff.height,
        width=tiff.width,
        dtype=_NAMES[tiff.dtype],
        nodata=nodata,
        scales=tags.scales,
        offsets=tags.offsets,
        descriptions=tags.descriptions,
        tag_datetime=datetime,
        place=place,
        alpha=tiff.alpha,
        acquired=tags.acquired,
    )
    return header, pixels


_NAMES = {code: np.dtype(code).name for code in ("u1", "u2", "u4", "i2", "i4", "f4", "f8")}
