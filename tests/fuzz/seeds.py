"""Good GeoTIFFs of every kind, which mutations start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rasterio.drivers import raster_driver_extensions
from rasterio.errors import RasterioError

from tests.rasters import dn_pixels, geotiff

_COMPRESSIONS = ("lzw", "deflate", "packbits", "zstd", "lzma", "lerc", "lerc_deflate", "webp", "jxl", "jpeg")
_MAX_SEED_BYTES = 300_000  # a larger file's mutations would cost minutes of uploading


def generated() -> list[bytes]:
    """Files that the service can read, most of them good tiles."""
    assert "tif" in raster_driver_extensions()
    return [data for data in _generated() if data]


def real(folder: Path, limit: int = 60) -> list[bytes]:
    """The smaller GeoTIFFs below a folder, evenly picked."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))
    small = [p for p in files if p.stat().st_size <= _MAX_SEED_BYTES]
    return [p.read_bytes() for p in small[:: max(1, len(small) // limit)]]


def _generated() -> Iterator[bytes]:
    yield geotiff()
    yield geotiff(nodata=0, tags={"TIFFTAG_DATETIME": "2020:08:02 18:31:00", "note": "x" * 200})
    yield geotiff(crs=None)
    yield geotiff(crs="EPSG:4326", origin=(-179.999, 89.9), pixel_size=0.0003)
    yield geotiff(crs="EPSG:3031", origin=(0.0, 0.0))
    yield geotiff(descriptions=[f"SR_B{i}" for i in range(1, 8)])
    yield geotiff(scales=[2.75e-5] * 7, offsets=[-0.2] * 7)
    yield geotiff(interleave="band")
    yield geotiff(tiled=True, blockxsize=16, blockysize=16)
    yield geotiff(dn_pixels(100, 90), tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    yield geotiff(BIGTIFF="YES")
    yield geotiff(BIGTIFF="YES", ENDIANNESS="BIG", interleave="band", compress="lzw")
    yield geotiff(ENDIANNESS="BIG")
    yield geotiff(dn_pixels(22, 22), blockysize=1)
    yield geotiff(dn_pixels(60, 63), compress="deflate", predictor=2)
    yield geotiff((dn_pixels() * np.float32(2.75e-5) - np.float32(0.2)), compress="deflate", predictor=3)
    yield geotiff((dn_pixels() * 2.75e-5 - 0.2), nodata=float("nan"))
    yield geotiff(np.zeros((7, 41, 41), np.uint16), SPARSE_OK="TRUE")
    yield geotiff(dn_pixels(count=8), alpha=True)
    yield geotiff(dn_pixels(count=13))
    yield geotiff(dn_pixels(count=6))
    yield geotiff(dn_pixels(count=1))
    for kind in ("uint8", "int8", "int16", "int32", "uint32", "int64", "uint64", "complex64"):
        yield geotiff((dn_pixels() // 100).astype(kind))
    for compression in _COMPRESSIONS:
        count, kind = (3, "uint8") if compression in ("webp", "jpeg") else (7, "uint16")
        pixels = dn_pixels(count=count)
        if kind == "uint8":
            pixels = (pixels // 128).astype(np.uint8)
        try:
            yield geotiff(pixels, compress=compression)
        except RasterioError:  # this GDAL was built without it
            yield b""
