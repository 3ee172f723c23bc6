"""What is looked at before GDAL opens a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rasters import geotiff as reading
from service.rasters.geotiff import GeotiffError, Reader
from service.rasters.tiff_header import MAGIC, announced_bands
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
        assert announced_bands(data) == announced_bands(memoryview(data)) == count
        assert announced_bands(tmp_path / "a.tif") == count


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


@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_any_bytes_have_a_number_of_bands(magic: bytes, rest: bytes) -> None:
    assert announced_bands(magic + rest) >= 1


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_change_of_the_header_has_a_number_of_bands(at: int, value: int) -> None:
    data = bytearray(geotiff(np.ones((7, 4, 4), np.uint16)))
    data[min(at, len(data) - 1)] = value
    assert announced_bands(bytes(data)) >= 1
