"""GeoTIFFs of every encoding are read exactly, and placed where their tags say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.warp import transform as warp

from tests.rasters import ORIGIN, dn_pixels, geotiff
from tests.service.rasters.whole_file import read


def test_what_a_file_says():
    data = geotiff(
        nodata=7.0,
        descriptions=["SR_B1", None, None, None, None, None, "SR_B7"],
        scales=[2.75e-5] * 7,
        offsets=[-0.2] * 7,
        tags={"TIFFTAG_DATETIME": "2020:08:02 18:31:00"},
    )
    raster = read(memoryview(data))
    np.testing.assert_array_equal(raster.pixels, dn_pixels())
    assert (raster.count, raster.height, raster.width, raster.dtype) == (7, 41, 41, "uint16")
    assert raster.nodata == 7.0
    assert raster.descriptions == ("SR_B1", None, None, None, None, None, "SR_B7")
    assert raster.scales == (2.75e-5,) * 7
    assert raster.offsets == (-0.2,) * 7
    assert raster.tag_datetime == "2020:08:02 18:31:00"
    assert raster.crs == "EPSG:32633"
    assert raster.transform == (30.0, 0.0, ORIGIN[0], 0.0, -30.0, ORIGIN[1])
    assert raster.gsd_m == pytest.approx(30, rel=1e-3)


def test_what_a_plain_file_does_not_say():
    raster = read(geotiff(crs=None))
    assert (raster.nodata, raster.tag_datetime) == (None, None)
    assert (raster.scales, raster.offsets, raster.descriptions) == ((1.0,) * 7, (0.0,) * 7, (None,) * 7)
    assert (raster.crs, raster.transform, raster.center, raster.gsd_m) == (None,) * 4
    assert raster.footprint(raster.whole) is None


@pytest.mark.parametrize(
    "creation",
    [{"compress": name} for name in ("lzw", "deflate", "packbits", "zstd", "lzma", "lerc", "lerc_deflate")]
    + [
        {"compress": "deflate", "predictor": 2},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "band"},
        {"interleave": "pixel"},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"ENDIANNESS": "BIG", "BIGTIFF": "YES", "compress": "lzw", "predictor": 2},
        {"SPARSE_OK": "TRUE"},
    ],
    ids=str,
)
def test_every_encoding_gives_the_same_pixels(creation):
    raster = read(geotiff(**creation))
    np.testing.assert_array_equal(raster.pixels, dn_pixels())
    assert raster.center == read(geotiff()).center


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint32", "int32", "int64", "float32", "float64"]
)
def test_pixel_types_come_through(dtype):
    pixels = (dn_pixels() % 100).astype(dtype)
    raster = read(geotiff(pixels))
    assert raster.dtype == dtype
    np.testing.assert_array_equal(raster.pixels, pixels)


@pytest.mark.parametrize("creation", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}], ids=str)
def test_band_names_that_are_not_utf_8(creation):
    data = geotiff(descriptions=["SR_B1", "caf__", *[None] * 5], **creation)
    raster = read(data.replace(b"caf__", "caf\u00e9".encode()))
    assert raster.descriptions[:2] == ("SR_B1", "caf\u00e9")
    raster = read(data.replace(b"caf__", b"caf\xe9\xe9"))
    assert raster.descriptions[:2] == ("SR_B1", "caf??")
    np.testing.assert_array_equal(raster.pixels, dn_pixels())


def test_other_tags_that_are_not_utf_8_do_not_matter():
    tags = {"TIFFTAG_ARTIST": "_artist_", "TIFFTAG_DATETIME": "2020:08:02 18:31:00"}
    data = geotiff(tags=tags)
    assert read(data.replace(b"_artist_", b"\xe9" * 8)).tag_datetime == "2020:08:02 18:31:00"
    assert read(data.replace(b"2020:08:02", b"\xe9" * 10)).tag_datetime in (None, "")


def test_threads_read_at_once():
    zones = [f"EPSG:{code}" for code in (*range(32601, 32661, 5), 4326)]
    files = [
        geotiff(
            dn_pixels(seed=i),
            crs=zone,
            **({"pixel_size": 3e-4, "origin": (10, 50)} if zone == "EPSG:4326" else {}),
        )
        for i, zone in enumerate(zones)
    ]

    def footprint(data):
        raster = read(data)
        return raster.footprint(raster.whole)

    alone = [footprint(data) for data in files]
    assert len({str(place) for place in alone}) == len(files)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(4):
            for i, raster in enumerate(pool.map(read, files)):
                np.testing.assert_array_equal(raster.pixels, dn_pixels(seed=i), err_msg=f"round {round_}")
                assert raster.footprint(raster.whole) == alone[i]
        assert list(pool.map(footprint, files * 3)) == alone * 3


def written(**profile) -> bytes:
    gcps = profile.pop("gcps", None)
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=41, height=41, count=7, dtype="uint16", **profile) as dataset:
            dataset.write(dn_pixels())
            if gcps:
                dataset.gcps = gcps
        return bytes(memory.read())


def test_places_that_are_none():
    crs_only = written(crs="EPSG:32633")
    transform_only = written(transform=rasterio.Affine(30, 0, 0, 0, -30, 0))
    points = [GroundControlPoint(row, col, 13 + col, 47 - row) for row, col in ((0, 0), (0, 40), (40, 0))]
    by_points = written(gcps=(points, rasterio.CRS.from_epsg(4326)))
    local = written(
        crs='LOCAL_CS["a building site",UNIT["metre",1]]', transform=rasterio.Affine(30, 0, 0, 0, -30, 0)
    )
    for data in (crs_only, transform_only, by_points, local):
        raster = read(data)
        assert (raster.center, raster.gsd_m, raster.footprint(raster.whole)) == (None, None, None)


def test_pixel_is_point_is_half_a_pixel_off():
    area, point = read(geotiff()), read(geotiff(tags={"AREA_OR_POINT": "Point"}))
    assert area.center == pytest.approx(point.center)


@pytest.mark.shared
def test_all_real_tiles_are_read_and_placed(shared):
    files = sorted((shared / "data" / "ben_landsat" / "images").glob("*.tif"))
    assert len(files) == 148
    for path in files:
        raster = read(path.read_bytes())
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(raster.pixels, dataset.read())
            left, bottom, right, top = dataset.bounds
            (lon,), (lat,) = warp(dataset.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
        assert raster.center == pytest.approx((lat, lon), abs=1e-7)  # 1 cm
        assert raster.gsd_m == pytest.approx(30, rel=2e-3)
