"""The reader of plain GeoTIFFs says what GDAL says, to the bit, or nothing."""

from __future__ import annotations

import math
import random
import struct
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import sample
from service.rasters import known_places, native_pixels
from service.rasters.geotiff import GeotiffError, Header, Limits, Reader
from service.rasters.plain_tiff import LZW, parse
from tests.fuzz import seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.tiff import layout, write_value
from tests.rasters import dn_pixels, geotiff

LIMITS = Limits(max_decoded_bytes=20_000_000)
NAMES = [f"SR_B{band}" for band in range(1, 8)]


def without_plain() -> AbstractContextManager[object]:
    """Every file is read by GDAL."""
    return mock.patch("service.rasters.geotiff.plain_tiff.parse", return_value=None)


def both(data: bytes, limits: Limits = LIMITS) -> bool:
    """Reads a file both ways, compares, and says whether the second time was without GDAL."""
    refusal = None
    try:
        with without_plain(), Reader(data, limits, whole=True) as reader:
            assert not reader.plain
            expected, pixels = reader.header, reader.read()
    except GeotiffError as error:
        refusal = error.message
    if refusal is not None:
        with pytest.raises(GeotiffError) as caught, Reader(data, limits, whole=True) as reader:
            reader.read()
        assert caught.value.message == refusal
        return False
    for _ in range(2):  # the first may be GDAL's, which its CRS is learned from
        with Reader(data, limits, whole=True) as reader:
            header, found, plain = reader.header, reader.read(), reader.plain
        for name in Header.__dataclass_fields__:
            came, wanted = getattr(header, name), getattr(expected, name)
            if isinstance(wanted, float) and math.isnan(wanted):
                came, wanted = str(came), str(wanted)
            assert came == wanted, name
        assert header.center == expected.center
        assert header.gsd_m == expected.gsd_m
        assert found.dtype == pixels.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert found.tobytes() == pixels.tobytes()
        assert found.shape == pixels.shape
    return plain


@st.composite
def plain_files(draw: st.DrawFn) -> bytes:
    """Files that GDAL writes in every way that is plain."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4", "f8"])))
    count, height, width = draw(st.tuples(st.integers(1, 7), st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.integers(0, 256, (count, height, width * dtype.itemsize), np.uint8).view(dtype)
    if draw(st.booleans()):  # smooth as well as noise
        pixels = dn_pixels(height, width, count=count).astype(dtype)
    creation: dict[str, object] = {"interleave": draw(st.sampled_from(["pixel", "band"]))}
    creation["ENDIANNESS"] = draw(st.sampled_from(["LITTLE", "BIG"]))
    if draw(st.booleans()):
        creation["compress"] = draw(st.sampled_from(["deflate", "lzw"]))
        creation["predictor"] = draw(st.sampled_from([1, 3 if dtype.kind == "f" else 2]))
    if draw(st.booleans()):
        side = st.sampled_from([16, 32, 48, 64])
        creation |= {"tiled": True, "blockxsize": draw(side), "blockysize": draw(side)}
    else:
        creation["blockysize"] = draw(st.integers(1, height))
    crs, origin, size = draw(
        st.sampled_from(
            [
                (None, (0.0, 0.0), 1.0),
                ("EPSG:32633", (386_355.0, 5_293_245.0), 30.0),
                ("EPSG:32756", (300_000.5, 6_200_000.25), 29.9),
                ("EPSG:4326", (10.1, 50.2), 0.0003),
                ("EPSG:3857", (1.1e6, 6.1e6), 38.2),
                ("EPSG:3035", (4.3e6, 2.9e6), 10.0),
                ("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84", (1000.0, 2000.0), 30.0),
            ]
        )
    )
    nodata = None
    if draw(st.booleans()):
        whole = st.integers(0, 255) if dtype.kind == "u" else st.integers(-9999, 9999)
        nodata = float(draw(whole))
        if dtype.kind == "f" and draw(st.booleans()):
            nodata = draw(st.sampled_from([math.nan, -9999.5]))
    number = st.floats(-1e6, 1e6, allow_subnormal=False)
    name = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='<>&"'), min_size=1)
    tags = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "TIFFTAG_DATETIME": st.just("2020:08:02 18:31:00"),
                "TIFFTAG_IMAGEDESCRIPTION": st.just("somewhere"),
                "AREA_OR_POINT": st.sampled_from(["Area", "Point"]) if crs else st.just("Area"),
                "SCENE": st.just("LC08"),
            },
        )
    )

    def some(strategy: st.SearchStrategy[object]) -> list[object] | None:
        return draw(st.none() | st.lists(strategy, min_size=count, max_size=count))

    return geotiff(
        pixels,
        crs=crs,
        origin=origin,
        pixel_size=size,
        nodata=nodata,
        descriptions=some(st.none() | name),
        scales=some(number),
        offsets=some(number),
        tags=tags,
        **creation,
    )


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plain_files())
def test_what_gdal_writes_plainly_is_read_alike_without_it(data: bytes) -> None:
    tiff = parse(data, LIMITS)
    assert tiff is not None
    assert both(data) or (tiff.compression == LZW and not native_pixels.usable(tiff))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plain_files())
def test_so_it_is_where_there_was_no_compiler(data: bytes) -> None:
    with mock.patch("service.rasters.plain_pixels.native_pixels.usable", return_value=False):
        tiff = parse(data, LIMITS)
        assert tiff is not None
        assert both(data) or tiff.compression == LZW


@pytest.mark.parametrize(
    "creation",
    [
        {"compress": "packbits"},
        {"compress": "zstd"},
        {"BIGTIFF": "YES"},
        {"SPARSE_OK": "TRUE", "pixels": np.zeros((7, 41, 41), np.uint16)},
        {"pixels": dn_pixels().astype(np.int64)},
        {"pixels": (dn_pixels() // 256).astype(np.int8)},
        {"pixels": dn_pixels(200, 200), "compress": "deflate"},  # as much as GDAL unpacks faster
        {"NBITS": "12"},
        {"descriptions": ["caf\u00e9"] * 7},
        {"descriptions": ["a < b & c"] * 7},
        {"descriptions": [" led"] * 7},
        {"pixel_size": -30.0},  # south-up: a matrix
        {"tags": {"TIFFTAG_DATETIME": "caf\u00e9"}},
        {"scales": [math.inf] * 7, "offsets": [0.0] * 7},
        {"pixels": dn_pixels().astype(np.float32), "nodata": 0.1},
    ],
    ids=lambda creation: str(list(creation)),
)
def test_what_is_not_plain_is_left_to_gdal(creation) -> None:
    assert not both(geotiff(**creation))


@pytest.mark.parametrize("suffix", ["overview", "mask", "second"])
def test_more_than_one_image_is_left_to_gdal(suffix: str, tmp_path: Path) -> None:
    import rasterio

    path = tmp_path / "more.tif"
    path.write_bytes(geotiff())
    if suffix == "second":
        tifffile.imwrite(path, dn_pixels(count=1)[0], append=True)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            if suffix == "mask":
                dataset.write_mask(np.eye(41, dtype=bool))
            else:
                dataset.build_overviews([2])
    assert not both(path.read_bytes())


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("metadata", [None, {"axes": "CYX"}])
def test_files_that_another_library_wrote(planar: str, metadata, tmp_path: Path) -> None:
    pixels = dn_pixels()
    path = tmp_path / "other.tif"
    tifffile.imwrite(
        path,
        pixels if planar == "separate" else pixels.transpose(1, 2, 0),
        photometric="minisblack",
        planarconfig=planar,
        compression="zlib",
        metadata=metadata,
    )
    assert both(path.read_bytes())
    tifffile.imwrite(path, pixels, imagej=True)
    assert not both(path.read_bytes())


def test_a_file_with_new_keys_is_read_by_gdal_once() -> None:
    known_places.forget()
    data, moved = geotiff(), geotiff(origin=(400_000.0, 5_300_000.0))
    readers = [Reader(file, LIMITS, whole=True) for file in (data, moved, data, geotiff(crs="EPSG:32634"))]
    assert [reader.plain for reader in readers] == [False, True, True, False]
    assert readers[0].header.place == readers[2].header.place
    assert readers[1].header.transform == (30.0, 0.0, 400_000.0, 0.0, -30.0, 5_300_000.0)
    for reader in readers:
        reader.close()


def test_what_is_known_of_keys_is_bounded() -> None:
    for number in range(300):
        known_places.learn(
            _with_name(number), ("name", "WKT"), (30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0)
        )
    assert len(known_places._known) == known_places._MAX_KEPT
    with pytest.raises(known_places.UnknownError):
        known_places.place(_with_name(0))
    assert known_places.place(_with_name(299)).crs == "name"
    known_places.forget()


def _with_name(number: int):
    data = geotiff().replace(b"zone 33N", f"zone{number:4d}".encode())
    return parse(data, LIMITS)


def test_nothing_is_learned_from_a_transform_that_tags_do_not_say() -> None:
    known_places.forget()
    known_places.learn(parse(geotiff(), LIMITS), ("name", "WKT"), (30.0, 0.0, 1.0, 0.0, -30.0, 2.0))
    with pytest.raises(known_places.UnknownError):
        known_places.place(parse(geotiff(), LIMITS))


def test_parts_of_a_plain_file_are_those_of_gdal() -> None:
    data = geotiff(tiled=True, blockxsize=16, blockysize=16, compress="deflate", predictor=2)
    both(data)
    with Reader(data, LIMITS, whole=True) as plain, Reader(data, LIMITS) as gdal:
        assert plain.plain
        for window, bands in (((3, 5, 20, 30), (7, 1)), (None, (2,)), ((0, 0, 41, 41), None)):
            np.testing.assert_array_equal(plain.read(window, bands), gdal.read(window, bands))
        plain.read()[:] = 0  # whoever writes into an answer does not write into the next
        np.testing.assert_array_equal(plain.read(), gdal.read())


@pytest.mark.parametrize(
    ("tight", "code"),
    [
        (Limits(max_pixels=1680), "too-large"),
        (Limits(max_bands=6), "too-large"),
        (Limits(max_decoded_bytes=41 * 41 * 7 * 2 - 1), "too-large"),
    ],
    ids=str,
)
def test_limits_hold_for_a_plain_file(tight: Limits, code: str) -> None:
    assert both(geotiff(), Limits(41 * 41, 7, 41 * 41 * 7 * 2))
    assert not both(geotiff(), tight)
    with pytest.raises(GeotiffError) as caught:
        Reader(geotiff(), tight, whole=True)
    assert caught.value.code == code


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


def test_roles_of_items_are_known_in_any_case() -> None:
    data = geotiff(compress="lzw", descriptions=NAMES)
    assert both(data.replace(b'role="description">SR_B5', b'role="deScription">SR_B5'))


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


@pytest.mark.shared
def test_real_files_are_read_alike(shared: Path) -> None:
    files = [p for p in (shared / "data").rglob("*") if p.suffix.lower() in (".tif", ".tiff")]
    plain = {path.name for path in files if both(path.read_bytes(), Limits())}
    # Two that are large and deflated, one that is large and LZW, and one with a matrix.
    assert {path.name for path in files} - plain == {
        "hls_l30_10band_float32.tif",
        "alberta_LC08_043024_20200802.tif",
        "alberta_landcover.tif",
        "momotombo_LC08_017051_20151205_no_crs.tif",
    }
