"""The reader of plain GeoTIFFs says what GDAL says, to the bit, or nothing."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.rasters import native_pixels
from service.rasters.geotiff import GeotiffError, Limits, Reader
from service.rasters.plain_tiff import LZW, parse
from tests.rasters import dn_pixels, geotiff
from tests.service.rasters.compared_readers import LIMITS, NAMES, both


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
                "ACQUISITION_DATETIME": st.sampled_from(["2020-08-02T09:58:12.1Z", "?"]),
                "acquisition_datetime": st.just("2020-08-02"),
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
        # Three bands of bytes are red, green and blue; GDAL says in its own words which is alpha instead.
        alpha=count > 1 and (dtype.itemsize, count) != (1, 3) and draw(st.booleans()),
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


def test_roles_of_items_are_known_in_any_case() -> None:
    data = geotiff(compress="lzw", descriptions=NAMES)
    assert both(data.replace(b'role="description">SR_B5', b'role="deScription">SR_B5'))


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
