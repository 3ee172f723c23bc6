"""Plain GeoTIFFs that are damaged, or made to do harm, are read as GDAL reads them, or left to it."""

from __future__ import annotations

import math
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import sample
from service.rasters.geotiff import Reader
from tests.fuzz import seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.tiff import layout, write_value
from tests.rasters import dn_pixels, geotiff
from tests.service.rasters.compared_readers import LIMITS, NAMES, both


def test_a_bomb_is_never_unpacked(monkeypatch) -> None:
    """A strip that unpacks to a gigabyte, where 23 KB are announced: no more than one byte beyond them."""
    data = geotiff(compress="deflate", blockysize=41)
    both(data)
    bomb = zlib.compressobj()
    packed = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(64)]) + bomb.flush()
    file = bytearray(data)
    found = layout(file)
    entries = {entry.tag: entry for entry in found.entries}
    write_value(file, found, entries[273], 0, len(file))
    write_value(file, found, entries[279], 0, min(len(packed), 65_535))
    produced = []

    class Watched:
        def __init__(self) -> None:
            self.stream = real()

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def decompress(self, data, limit):
            produced.append(self.stream.decompress(data, limit))
            return produced[-1]

    monkeypatch.setattr("service.rasters.plain_pixels.native_pixels.usable", lambda _: False)
    real = zlib.decompressobj
    monkeypatch.setattr("service.rasters.plain_pixels.zlib.decompressobj", Watched)
    with Reader(bytes(file) + packed, LIMITS, whole=True) as reader:
        assert not reader.plain
    monkeypatch.undo()  # in C there is no room for more either
    with Reader(bytes(file) + packed, LIMITS, whole=True) as reader:
        assert not reader.plain
    assert [len(part) for part in produced] == [41 * 41 * 7 * 2 + 1]


def entry_changed(tag: int, value: float, index: int = 0) -> bytes:
    file = bytearray(geotiff(compress="deflate"))
    found = layout(file)
    (entry,) = [entry for entry in found.entries if entry.tag == tag]
    write_value(file, found, entry, index, value)
    return bytes(file)


@pytest.mark.parametrize(
    ("tag", "value", "index"),
    [
        (256, 0, 0), (256, 65_535, 0), (257, 0, 0), (258, 12, 3), (258, 8, 0), (259, 5, 0), (262, 5, 0),
        (273, 0, 0), (273, 2**32 - 1, 1), (273, 4, 0), (277, 65_535, 0), (278, 0, 0), (278, 1, 0),
        (279, 2**32 - 1, 0), (279, 0, 0), (279, 10, 1), (284, 3, 0), (338, 3, 0), (339, 3, 0), (339, 6, 6),
        (33550, math.nan, 0), (33550, 0.0, 1), (33550, -30.0, 1), (33922, math.inf, 3), (33922, 7.0, 0),
    ],
)  # fmt: skip
def test_a_tag_that_is_not_as_expected_is_left_to_gdal(tag: int, value: float, index: int) -> None:
    assert not both(entry_changed(tag, value, index))


@pytest.mark.parametrize("following", [8, 10, 2**32 - 1])
def test_directories_in_a_circle_are_left_to_gdal(following: int) -> None:
    file = bytearray(geotiff())
    struct.pack_into("<I", file, layout(file).next_at, following)
    assert not both(bytes(file))


@pytest.mark.parametrize("compress", [{}, {"compress": "deflate"}])
def test_a_file_that_breaks_off_is_refused_as_gdal_refuses_it(compress) -> None:
    data = geotiff(dn_pixels(8, 8), descriptions=NAMES, **compress)
    assert both(data)
    for length in range(0, len(data), 23):
        assert not both(data[:length])


def test_mutated_files_are_read_alike_or_left_to_gdal() -> None:
    files = [*seeds.generated(), sample.make(0)]
    plain = 0
    for number in range(600):
        rng = random.Random(f"plain/{number}")
        plain += both(mutated(rng.choice(files), rng))
    assert plain > 20  # damage that leaves a plain file


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["deflate", "lzw"]),
    st.lists(st.tuples(st.integers(0, 600) | st.integers(-400, -1), st.integers(0, 255)), max_size=3),
)
def test_bytes_changed_at_random(compress, changes) -> None:
    data = bytearray(SMALL[compress])
    for position, value in changes:
        data[position] = value
    both(bytes(data))


SMALL = {
    compress: geotiff(
        dn_pixels(5, 6), compress=compress, predictor=2, descriptions=NAMES, nodata=0, tags={"A": "b"}
    )
    for compress in ("deflate", "lzw")
}
