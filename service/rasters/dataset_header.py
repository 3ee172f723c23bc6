"""What GDAL says of an open dataset, held against the limits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from service.rasters.gdal_tags import ACQUIRED
from service.rasters.georeference import Affine, Georeference, placed
from service.rasters.raster_header import GeotiffError, Header, Limits
from service.rasters.tiff_header import MAX_DIRECTORIES, MAX_TAG_BYTES, Announced

_MOST_SHARED = 4  # writers may store equal blocks once; whoever unpacks them has as much work as without


def check(dataset: DatasetReader, limits: Limits, *, whole: bool) -> None:
    """Refuses what is too large or of another kind, before any pixel is read.

    Args:
        dataset: just opened.
        limits: of pixels, bands and decoded bytes.
        whole: whether all pixels will be in memory at once.

    Raises:
        GeotiffError: `too-large` or `unsupported-pixel-type`.
    """
    width, height, count = dataset.width, dataset.height, dataset.count
    if width * height > limits.max_pixels:
        raise GeotiffError(
            "too-large", f"the raster is {width} x {height} px; expected at most {limits.max_pixels:,} pixels"
        )
    _check_bands(count, limits)
    kinds = sorted(set(dataset.dtypes))
    if any(kind.startswith("complex") for kind in kinds):
        raise GeotiffError(
            "unsupported-pixel-type",
            f"pixels are {', '.join(kinds)}; expected integers or floating-point numbers",
        )
    value = max(np.dtype(kind).itemsize for kind in kinds)
    block = max(rows * cols for rows, cols in dataset.block_shapes)
    decoded = max(width * height if whole else 0, block) * count * value
    if decoded > limits.max_decoded_bytes:
        raise GeotiffError(
            "too-large",
            f"the raster unpacks to {decoded:,} bytes ({width} x {height} px, {count} bands, "
            f"{', '.join(kinds)}, strips or tiles of {block:,} px); "
            f"expected at most {limits.max_decoded_bytes:,}"
            + (" of a file that is read at once; fit=grid reads a scene in parts" if whole else ""),
        )


def check_announced(said: Announced, limits: Limits) -> None:
    """Refuses what GDAL would take memory for when it opens the file, or read another file of.

    Raises:
        GeotiffError: `too-large`, `unreadable-tiff`.
    """
    _check_bands(said.bands, limits)
    if said.tag_bytes > MAX_TAG_BYTES:
        raise GeotiffError(
            "too-large",
            f"a tag of the file has {said.tag_bytes:,} bytes; expected at most {MAX_TAG_BYTES:,} in any but "
            "the places of strips or tiles",
        )
    if said.block_bytes > _MOST_SHARED * said.file_bytes:
        raise GeotiffError(
            "too-large",
            f"the strips or tiles have {said.block_bytes:,} bytes in a file of {said.file_bytes:,}; expected "
            f"at most {_MOST_SHARED} times as many, where some are the same",
        )
    if said.cut_off is not None:
        raise GeotiffError(
            "unreadable-tiff",
            f"the value of tag {said.cut_off} lies behind the end of the {said.file_bytes:,} bytes: the file "
            "is cut. Expected a complete, undamaged GeoTIFF",
        )
    if said.directories > MAX_DIRECTORIES:
        raise GeotiffError(
            "too-large", f"the file has more than {MAX_DIRECTORIES:,} directories; expected one raster"
        )


def _check_bands(count: int, limits: Limits) -> None:
    if count > limits.max_bands:
        raise GeotiffError("too-large", f"the raster has {count} bands; expected at most {limits.max_bands}")


def read(dataset: DatasetReader) -> Header:
    """The header of a dataset; bands of several types have the type that holds them all."""
    kinds = set(dataset.dtypes)
    return Header(
        count=dataset.count,
        height=dataset.height,
        width=dataset.width,
        dtype=dataset.dtypes[0] if len(kinds) == 1 else str(np.result_type(*kinds)),
        nodata=dataset.nodata,
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        descriptions=tuple(dataset.descriptions),
        tag_datetime=_tag(dataset, "TIFFTAG_DATETIME"),
        place=(place := _place(dataset)),
        by_points=place is None and bool(dataset.gcps[0] or dataset.rpcs),
        alpha=dataset.count > 1 and dataset.colorinterp[-1] == ColorInterp.alpha,
        acquired=_tag(dataset, ACQUIRED),
        pages=max(1, len(dataset.subdatasets)),
    )


def _tag(dataset: DatasetReader, name: str) -> str | None:
    try:
        value = dataset.get_tag_item(name)
    except UnicodeDecodeError:  # no text, then
        return None
    return None if value is None else str(value)


def _place(dataset: DatasetReader) -> Georeference | None:
    """None without a CRS or a transform; ground control points and RPCs are not resolved."""
    found = crs(dataset)
    if found is None or dataset.transform.is_identity:
        return None
    return placed(*found, affine(dataset))


def crs(dataset: DatasetReader) -> tuple[str, str] | None:
    """Name and WKT of the CRS, if there is one."""
    if not dataset.crs:
        return None
    wkt = str(dataset.crs.to_wkt())
    return _crs_name(wkt), wkt


def affine(dataset: DatasetReader) -> Affine:
    """The transform from pixels to the CRS."""
    transform = dataset.transform
    return (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)


@lru_cache(maxsize=256)
def _crs_name(wkt: str) -> str:
    """`EPSG:…` where the CRS is that one, else the WKT itself; looking it up takes milliseconds."""
    return str(rasterio.CRS.from_wkt(wkt).to_string())
