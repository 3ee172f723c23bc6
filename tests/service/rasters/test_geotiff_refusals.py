"""Bytes of every kind are read, or refused as a GeotiffError, and cost no more than the limits allow."""

from __future__ import annotations

import socket
import struct
import zipfile
from io import BytesIO

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rasters.geotiff import GeotiffError, Limits, Reader
from tests.rasters import ORIGIN, dn_pixels, geotiff
from tests.service.rasters.whole_file import read

DEFAULT = Limits()
GOOD = geotiff(compress="deflate", descriptions=["SR_B1", None, None, None, None, None, "SR_B7"])
# Its GDAL_METADATA is XML that GDAL complains about, in words that quote a byte which is not UTF-8.
BROKEN_XML = geotiff(descriptions=["SR_B1"] * 7).replace(b"<GDALMetadata>", b"<G\xffALMetadata>")


def refused(data: bytes, limits: Limits = DEFAULT) -> GeotiffError:
    with pytest.raises(GeotiffError) as caught:
        read(data, limits)
    assert caught.value.message == str(caught.value)
    assert len(caught.value.message) < 500
    return caught.value


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
    ("start", "words"),
    [
        (b"PK\x03\x04", "ZIP"),
        (b"\x1f\x8b\x08", "unpack it"),
        (b"\x89HDF\r\n", "gdal_translate"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"\x89PNG", "a picture"),
        (b"hello", "expected a GeoTIFF"),
    ],
)
def test_what_was_sent_by_mistake_is_named(start, words):
    with pytest.raises(GeotiffError, match=words):
        Reader(start + bytes(100))


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
        raster = read(bytes(data), Limits(max_decoded_bytes=10_000_000))
    except GeotiffError:
        return
    # Whatever place is left can be asked for.
    assert raster.center is None or abs(raster.center[0]) <= 90
    raster.footprint(raster.whole)
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
    assert read(GOOD, Limits(41 * 41, 7, 41 * 41 * 7 * 2)).count == 7
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
