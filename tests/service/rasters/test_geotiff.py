"""Bytes of every kind: read exactly, or refused as a GeotiffError."""

from __future__ import annotations

import socket
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.warp import transform as warp

from service.rasters.geotiff import GeotiffError, Limits, read
from tests.rasters import ORIGIN, dn_pixels, geotiff

DEFAULT = Limits()
GOOD = geotiff(compress="deflate", descriptions=["SR_B1", None, None, None, None, None, "SR_B7"])
# Its GDAL_METADATA is XML that GDAL complains about, in words that quote a byte which is not UTF-8.
BROKEN_XML = geotiff(descriptions=["SR_B1"] * 7).replace(b"<GDALMetadata>", b"<G\xffALMetadata>")


def refused(data: bytes, limits: Limits = DEFAULT) -> GeotiffError:
    with pytest.raises(GeotiffError) as caught:
        read(data, limits=limits)
    assert caught.value.message == str(caught.value)
    assert len(caught.value.message) < 500
    return caught.value


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
    assert (raster.crs, raster.transform, raster.center, raster.gsd_m, raster.footprint()) == (None,) * 5


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
    assert raster.center == read(GOOD).center


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


def test_complex_pixels_are_refused():
    error = refused(geotiff(dn_pixels().astype(np.complex64)))
    assert error.code == "unsupported-pixel-type"
    assert "complex64" in error.message


def zipped() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tile.tif", GOOD)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II*",
        b"hello",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"<VRTDataset rasterXSize='40' rasterYSize='40'></VRTDataset>",
        b"/vsicurl/http://127.0.0.1/tile.tif",
        b"GTIFF_DIR:1:/etc/passwd",
        b"MM*\0" + GOOD[4:],
        zipped(),
        b" " + GOOD,
    ],
    ids=lambda data: repr(data[:8]),
)
def test_no_tiff_magic(data):
    error = refused(data)
    assert error.code == "not-a-tiff"
    assert "expected a GeoTIFF" in error.message


@pytest.mark.parametrize(
    "data",
    [
        GOOD[:8],
        GOOD[:100],
        GOOD[: len(GOOD) // 2],
        b"II*\0" + bytes(100),
        b"II*\0" + b"\xff" * 100,
        b"MM\0*" + GOOD[4:],
        b"II*\0" + b"<VRTDataset rasterXSize='40' rasterYSize='40'></VRTDataset>",
        b"II+\0" + GOOD[4:],
        struct.pack("<4sIHHHII", b"II*\0", 8, 1, 256, 3, 1, 40) + struct.pack("<I", 8),  # its own successor
    ],
    ids=range(9),
)
def test_damage_is_a_refusal_without_noise(data, capfd):
    error = refused(data)
    assert error.code == "unreadable-tiff"
    assert "vsimem" not in error.message
    assert capfd.readouterr() == ("", "")


def test_broken_metadata_makes_no_noise(capfd):
    raster = read(BROKEN_XML)
    np.testing.assert_array_equal(raster.pixels, dn_pixels())
    assert raster.descriptions == (None,) * 7
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compress", [None, "lzw", "deflate"])
def test_every_truncation_is_read_or_refused(compress):
    data = geotiff(
        dn_pixels(8, 8), descriptions=["SR_B1"] * 7, **({"compress": compress} if compress else {})
    )
    refusals = 0
    for length in range(4, len(data), 7):
        try:
            raster = read(data[:length])
        except GeotiffError:
            refusals += 1
        else:  # what was cut off is metadata at the end; no pixel is invented
            np.testing.assert_array_equal(raster.pixels, dn_pixels(8, 8))
    assert refusals > len(data) // 7 // 2


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_mutations_are_read_or_refused(changes):
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
    try:
        raster = read(bytes(data), limits=Limits(max_decoded_bytes=10_000_000))
    except GeotiffError:
        return
    # Whatever place is left can be asked for.
    assert raster.center is None or abs(raster.center[0]) <= 90
    raster.footprint()
    _ = raster.gsd_m


def sparse(width: int, height: int, count: int = 1, **creation) -> bytes:
    """A file that announces much and holds nothing."""
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=width,
            height=height,
            count=count,
            dtype="uint16",
            SPARSE_OK="TRUE",
            crs="EPSG:32633",
            transform=rasterio.Affine(30, 0, *ORIGIN[:1], 0, -30, ORIGIN[1]),
            **creation,
        ):
            pass
        return bytes(memory.read())


def test_limits_are_checked_from_the_header():
    scene = sparse(8_001, 8_000, compress="deflate")
    assert len(scene) < 1_000_000
    error = refused(scene)
    assert error.code == "too-large"
    assert "8001 x 8000 px; expected at most 64,000,000 pixels" in error.message

    error = refused(sparse(40, 40, 65))
    assert (error.code, "65 bands; expected at most 64" in error.message) == ("too-large", True)

    error = refused(sparse(8_000, 8_000, 9, compress="deflate"))  # 64 M pixels * 9 bands * 2 bytes
    assert (error.code, "1,152,000,000 bytes" in error.message) == ("too-large", True)

    # 40 x 40 pixels in one tile of 16,384 x 16,384 would need 3.7 GB to unpack.
    error = refused(sparse(40, 40, 7, tiled=True, blockxsize=16_384, blockysize=16_384, compress="deflate"))
    assert (error.code, "268,435,456 px" in error.message) == ("too-large", True)


def test_limits_are_settable():
    assert read(GOOD, limits=Limits(41 * 41, 7, 41 * 41 * 7 * 2)).count == 7
    for tight in (
        Limits(max_pixels=1680),
        Limits(max_bands=6),
        Limits(max_decoded_bytes=41 * 41 * 7 * 2 - 1),
    ):
        assert refused(GOOD, tight).code == "too-large"


def test_an_upload_cannot_make_the_service_fetch(tmp_path):
    other = tmp_path / "other.tif"
    other.write_bytes(geotiff(np.full((7, 82, 82), 1, np.uint16)))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        for target in (f"/vsicurl/http://127.0.0.1:{port}/o.tif", str(other)):
            with rasterio.MemoryFile() as memory:
                with memory.open(driver="GTiff", width=41, height=41, count=7, dtype="uint16") as dataset:
                    dataset.write(dn_pixels())
                    dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=target, MASK_FILE=target)
                data = bytes(memory.read())
            assert target.encode() in data
            np.testing.assert_array_equal(read(data).pixels, dn_pixels())
        with pytest.raises(TimeoutError):
            listener.accept()


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
    alone = [read(data).footprint() for data in files]
    assert len({str(place) for place in alone}) == len(files)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(4):
            for i, raster in enumerate(pool.map(read, files)):
                np.testing.assert_array_equal(raster.pixels, dn_pixels(seed=i), err_msg=f"round {round_}")
                assert raster.footprint() == alone[i]
        assert list(pool.map(lambda data: read(data).footprint(), files * 3)) == alone * 3


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
        assert (raster.center, raster.gsd_m, raster.footprint()) == (None, None, None)


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
