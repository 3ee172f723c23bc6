"""What is looked at before GDAL opens a file."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from tifffile import TiffWriter

from model.bands import BANDS
from service.rasters import geotiff as reading
from service.rasters.geotiff import GeotiffError, Reader
from service.rasters.tiff_header import MAGIC, MAX_TAG_BYTES, Announced, announced
from tests.fuzz.tiff import layout, write_value
from tests.rasters import dn_pixels, geotiff

KINDS: list[dict[str, Any]] = [
    {},
    {"ENDIANNESS": "BIG"},
    {"BIGTIFF": "YES"},
    {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
]


def with_bands(count: int, **creation: Any) -> bytes:
    """A good file that says that it has another number of bands."""
    data = bytearray(geotiff(**creation))
    found = layout(data)
    assert found is not None
    [entry] = [entry for entry in found.entries if entry.tag == 277]
    write_value(data, found, entry, 0, count)
    return bytes(data)


@pytest.mark.parametrize("creation", KINDS)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_bands_are_counted(creation: dict[str, Any], interleave: str, tmp_path: Path) -> None:
    for count in (1, 7, 300):
        data = geotiff(dn_pixels(2, 2, count=count), interleave=interleave, **creation)
        (tmp_path / "a.tif").write_bytes(data)
        assert announced(data) == announced(memoryview(data)) == announced(tmp_path / "a.tif")
        assert announced(data).bands == count


@pytest.mark.parametrize("creation", KINDS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_file_cut_within_what_its_bands_are_called_is_refused(
    creation: dict[str, Any], whole: bool
) -> None:
    """GDAL writes that last, and reads a cut file as if it had never been said."""
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", count=7, height=40, width=40, dtype="uint16", **creation) as file:
            file.write(dn_pixels(40, 40)[::-1])
            file.descriptions = BANDS[::-1]
            file.nodata = 65_535
        data = bytes(memory.read())
    with Reader(data, whole=whole) as reader:
        assert reader.header.descriptions == BANDS[::-1]
    for cut in (1, 2, 7):
        with pytest.raises(GeotiffError, match="the file is cut") as caught:
            Reader(data[:-cut], whole=whole)
        assert caught.value.code == "unreadable-tiff"


@pytest.mark.parametrize("creation", KINDS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_gdal_is_not_asked_about_too_many(
    creation: dict[str, Any], on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("GDAL was asked")

    monkeypatch.setattr("rasterio.open", opened)
    monkeypatch.setattr(reading, "MemoryFile", opened)
    data = with_bands(65_535, **creation)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(GeotiffError, match="has 65535 bands; expected at most 64") as raised:
        Reader(tmp_path / "a.tif" if on_disk else data)
    assert raised.value.code == "too-large"


def with_texts(size: int, directory: int, **creation: Any) -> bytes:
    """Two rasters in one file, one of which has a long description."""
    with TiffWriter(buffer := io.BytesIO(), **creation) as file:
        for n in range(2):
            file.write(
                np.full((40, 40, 7), 9000, np.uint16),
                photometric="minisblack",
                planarconfig="contig",
                description="x" * size if n == directory else "y",
                metadata=None,
            )
    return buffer.getvalue()


@pytest.mark.parametrize("directory", [0, 1])
@pytest.mark.parametrize("creation", [{}, {"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("on_disk", [False, True])
def test_long_tags_of_any_directory_are_refused(
    creation: dict[str, Any], directory: int, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL and what repairs its metadata would copy them several times over."""

    def content(size: int) -> bytes | Path:
        data = with_texts(size, directory, **creation)
        (tmp_path / "a.tif").write_bytes(data)
        return tmp_path / "a.tif" if on_disk else data

    with Reader(content(MAX_TAG_BYTES - 10)) as reader:
        assert reader.header.count == 7
    too_long = content(MAX_TAG_BYTES + 10)
    monkeypatch.setattr("rasterio.open", lambda *_, **__: pytest.fail("GDAL was asked"))
    monkeypatch.setattr(reading, "MemoryFile", lambda *_, **__: pytest.fail("GDAL was asked"))
    with pytest.raises(GeotiffError, match="a tag of the file has 1,04") as raised:
        Reader(too_long)
    assert raised.value.code == "too-large"


@pytest.mark.parametrize("compress", ["lzw", "deflate"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_blocks_may_not_share_bytes_without_end(compress: str, on_disk: bool, tmp_path: Path) -> None:
    """Each is unpacked: 4,000 strips of the same 60 kB took a second, on the event loop."""
    data = bytearray(geotiff(dn_pixels(41, 41), compress=compress, blockysize=1))
    found = layout(data)
    assert found is not None
    [offsets] = [entry for entry in found.entries if entry.tag == 273]
    [sizes] = [entry for entry in found.entries if entry.tag == 279]
    for strip in range(sizes.count):
        write_value(data, found, offsets, strip, 8)
        write_value(data, found, sizes, strip, len(data) - 8)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(GeotiffError, match="the strips or tiles have") as raised:
        Reader(tmp_path / "a.tif" if on_disk else bytes(data), whole=True)
    assert raised.value.code == "too-large"


@pytest.mark.parametrize(("count", "code"), [(1000, "unreadable-tiff"), (1001, "too-large")])
def test_directories_are_limited(count: int, code: str) -> None:
    directory = struct.Struct("<HHHII I")  # one entry, the width, and where the next lies
    data = struct.pack("<4sI", b"II*\0", 8)
    for n in range(count):
        after = 8 + (n + 1) * directory.size if n < count - 1 else 0
        data += directory.pack(1, 256, 3, 1, 40, after)
    assert announced(data).directories == count
    with pytest.raises(GeotiffError) as raised:
        Reader(data)
    assert raised.value.code == code


def test_directories_in_a_circle_are_counted_once() -> None:
    data = struct.pack("<4sI", b"II*\0", 8) + struct.pack("<HHHII I", 1, 256, 3, 1, 40, 8)
    assert announced(data).directories == 1


@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_any_bytes_have_a_number_of_bands(magic: bytes, rest: bytes) -> None:
    assert announced(magic + rest) >= Announced(1, 0, 0, 0, 0)


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_change_of_the_header_has_a_number_of_bands(at: int, value: int) -> None:
    data = bytearray(geotiff(np.ones((7, 4, 4), np.uint16)))
    data[min(at, len(data) - 1)] = value
    assert announced(bytes(data)).bands >= 1
