"""A Landsat Collection-2 Level-2 product in a folder, as USGS delivers it: one file for each band."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import numpy as np
import rasterio

from model.bands import BANDS
from model.metadata import Acquisition
from model.tile_errors import TileError
from service.files import DELIVERED, MTL_PART, QA_PART, Delivery, File, product_of
from service.rasters.gdal_tags import ACQUIRED
from service.rasters.geotiff import GeotiffError, Limits
from service.rasters.open_raster import OpenRaster

_MTL = re.compile(r"(?P<product>.+)_MTL\.(txt|xml|json)", re.IGNORECASE)
_STRIP_ROWS = 512  # whole rows of the blocks that are written; 60 MB of a full scene
_BLOCK = 256  # px, a side: what windows of 40 px are read best from
# The user's own file: as large as Landsat has them, and several times that.
_LIMITS = Limits(max_pixels=1 << 30, max_decoded_bytes=1 << 31)


class DeliveryError(ValueError):
    """A folder that is no delivery: what is in it, and what was expected."""


STACK_ERRORS = (DeliveryError, GeotiffError, TileError, OSError)


def is_delivery(folder: Path) -> bool:
    """Whether a folder has a file of a surface-reflectance band."""
    return folder.is_dir() and any(
        (match := DELIVERED.fullmatch(file.name)) and match["part"].upper() != QA_PART
        for file in folder.iterdir()
    )


def find(folder: Path) -> dict[str, Path]:
    """The files of the one product in a folder, by the names of the parts in which a request sends them.

    SR_B1 to SR_B7, and QA_PIXEL and MTL where they are there.

    Raises:
        DeliveryError: no product, several, one with missing bands, or one without a coastal band.
    """
    if not folder.is_dir():
        raise DeliveryError(f"{folder} is no folder; expected one with the files of a Landsat product")
    found: dict[str, dict[str, Path]] = {}
    mtl: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        if match := DELIVERED.fullmatch(file.name):
            found.setdefault(match["product"], {})[match["part"].upper()] = file
        elif match := _MTL.fullmatch(file.name):
            mtl.setdefault(match["product"], {})[match[2].lower()] = file
    products = {name: files for name, files in found.items() if any(band in files for band in BANDS)}
    if len(products) != 1:
        names = ", ".join(sorted(products)[:5])
        came = f"the products {names}" if products else "no file named …_SR_B1.TIF to …_SR_B7.TIF"
        raise DeliveryError(
            f"{folder} has {came}; expected the files of one Landsat Collection-2 Level-2 product"
        )
    [(product, files)] = products.items()
    if missing := [band for band in BANDS if band not in files]:
        older = " (TM and ETM+ have no coastal band, and their order differs)" if missing == ["SR_B6"] else ""
        raise DeliveryError(
            f"{folder} lacks {', '.join(missing)} of {product}{older}; expected all seven bands"
        )
    parts = {name: files[name] for name in (*BANDS, QA_PART) if name in files}
    for kind in ("txt", "xml", "json"):
        if kind in mtl.get(product, {}):
            return parts | {MTL_PART: mtl[product][kind]}
    return parts


def load(folder: Path) -> Delivery:
    """The product in a folder, its files where they lie.

    Raises:
        DeliveryError: as `find`.
    """
    parts = find(folder)
    files = {name: File(path, path.name) for name, path in parts.items() if name != MTL_PART}
    mtl = parts.get(MTL_PART)
    return Delivery(
        tuple(files[band] for band in BANDS),
        files.get(QA_PART),
        None if mtl is None else mtl.read_bytes(),
        product_of(parts[BANDS[0]].name),
    )


def stack(folder: Path, output: Path, *, qa_pixel: bool = False) -> Acquisition | None:
    """Writes the seven bands of a delivery as one GeoTIFF, named, in tiles, with the acquisition time.

    The file appears under its name when it is complete.

    Args:
        folder: of the product.
        output: the file to write.
        qa_pixel: whether QA_PIXEL is put in as an eighth band; nothing is fill in it.

    Returns:
        When the scene was taken, as its MTL says.

    Raises:
        DeliveryError: as `find`; or there is no QA_PIXEL.
        GeotiffError, TileError: a file cannot be read, or does not fit the others.
        OSError: the output cannot be written.
    """
    delivery = load(folder)
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise DeliveryError(f"{output} cannot be written; expected a file name in a folder that is there")
    if qa_pixel and delivery.qa_pixel is None:
        raise DeliveryError(f"{folder} has no file named …_{QA_PART}.TIF; expected one where it is asked for")
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        with OpenRaster(delivery, _LIMITS, whole=False) as raster:
            _write(raster, partial, delivery.source or folder.name, qa_pixel=qa_pixel)
            acquired = raster.acquired
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return acquired


def _write(raster: OpenRaster, path: Path, product: str, *, qa_pixel: bool) -> None:
    header = raster.header
    names = (*BANDS, QA_PART) if qa_pixel else BANDS
    if qa_pixel and header.dtype != "uint16":  # one type for all bands
        raise TileError(
            "unsupported-pixel-type",
            f"the bands are {header.dtype} and {QA_PART} is uint16; expected uint16 DN in one file with it",
        )
    if header.nodata is None and header.dtype != "uint16":
        raise TileError("unsupported-pixel-type", f"the bands are {header.dtype}; expected uint16 DN")
    place = {} if header.place is None else {"crs": rasterio.CRS.from_wkt(header.place.wkt)}
    if header.transform is not None:
        place["transform"] = rasterio.Affine(*header.transform)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(names),
        height=header.height,
        width=header.width,
        dtype=header.dtype,
        nodata=0 if header.nodata is None else header.nodata,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        compress="deflate",
        predictor=2,
        BIGTIFF="IF_SAFER",
        **place,
    ) as dataset:
        for band, name in enumerate(names, start=1):
            dataset.set_band_description(band, name)
        # What the values are is told by these where they are no DN. QA_PIXEL is flags.
        dataset.scales = header.scales + (1.0,) * qa_pixel
        dataset.offsets = header.offsets + (0.0,) * qa_pixel
        tags = {"LANDSAT_PRODUCT_ID": product}
        if (acquired := raster.acquired) is not None:
            # The first is for other programs; the second has the fractions of the second and the zone.
            tags["TIFFTAG_DATETIME"] = acquired.when.strftime("%Y:%m:%d %H:%M:%S")
            tags[ACQUIRED] = acquired.text
        dataset.update_tags(**tags)
        for row in range(0, header.height, _STRIP_ROWS):
            rows = min(_STRIP_ROWS, header.height - row)
            window = (row, 0, rows, header.width)
            pixels = raster.read(window)
            if qa_pixel and (flags := raster.read_quality(window)) is not None:
                pixels = np.concatenate([pixels, flags[None]])
            dataset.write(pixels, window=rasterio.windows.Window(0, row, header.width, rows))
