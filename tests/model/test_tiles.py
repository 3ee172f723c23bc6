"""From raster to tile: nodata, crop, grid, fill."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model import tiles
from model.tiles import TileError, Window
from tests.rasters import dn_pixels


def code_of(call, *args, **kwargs) -> str:
    with pytest.raises(TileError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def all_valid(height, width):
    return np.ones((height, width), np.bool_)


def test_a_good_raster_passes_unchanged():
    dn = dn_pixels()
    got = tiles.prepare(dn)
    np.testing.assert_array_equal(got.dn, dn)
    assert got.valid.all()
    assert (got.bands, got.units, got.warnings) == ((1, 2, 3, 4, 5, 6, 7), "dn", ())


def test_bands_are_chosen_and_reordered_with_their_tags():
    dn = dn_pixels(count=9)
    got = tiles.prepare(dn, bands="9,8,7,6,5,4,3")
    np.testing.assert_array_equal(got.dn, dn[[8, 7, 6, 5, 4, 3, 2]])
    scales = [1.0, 1.0] + [2.75e-5] * 7
    offsets = [0.0, 0.0] + [-0.2] * 7
    got = tiles.prepare(dn, bands="9,8,7,6,5,4,3", file_scales=scales, file_offsets=offsets)
    np.testing.assert_array_equal(got.dn, dn[[8, 7, 6, 5, 4, 3, 2]])
    assert got.units == "scale_offset"


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("nodata", [None, 0.0, -9999.0, 20_000.0, float("nan"), float("inf"), 1e300, 0.5])
def test_nodata_becomes_zero_in_its_band_and_spoils_its_pixel(dtype, nodata):
    pixels = dn_pixels().astype(dtype)
    stored = 0 if nodata is None or not np.isfinite(nodata) else nodata
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        stored = stored if info.min <= stored <= info.max and stored == int(stored) else 0
    with np.errstate(over="ignore"):  # 1e300 becomes inf in float32, and is missing as such
        pixels[2, 3, 4] = stored
    got = tiles.prepare(pixels, nodata=nodata, units="dn")
    expected = all_valid(41, 41)
    expected[3, 4] = False
    np.testing.assert_array_equal(got.valid, expected)
    assert got.dn[2, 3, 4] == 0
    others = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(got.dn[others, 3, 4], dn_pixels()[others, 3, 4])


def test_nodata_of_a_band_that_is_not_used_does_not_matter():
    dn = dn_pixels(count=8)
    dn[7] = 0
    assert tiles.prepare(dn, bands="1,2,3,4,5,6,7").valid.all()


def test_float32_nodata_is_compared_as_stored():
    pixels = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)
    pixels[0, 0, 0] = np.float32(-0.001)
    assert not tiles.prepare(pixels, nodata=-0.001).valid[0, 0]


@pytest.mark.parametrize(
    ("of_dn", "units", "value"),
    [
        (lambda dn: (dn * 2.75e-5 - 0.2).astype(np.float32), "auto", -9999),
        (lambda dn: (dn * 2.75e-5 - 0.2).astype(np.float32), "auto", np.finfo(np.float32).min),
        (lambda dn: np.rint((dn * 2.75e-5 - 0.2) * 10_000).astype(np.int16), "reflectance_1e4", -9999),
        (lambda dn: dn.astype(np.int32), "dn", -9999),
    ],
)
def test_fill_that_is_not_declared_is_missing_and_said(of_dn, units, value):
    good = of_dn(dn_pixels())
    filled = good.copy()
    filled[:, :10] = value
    filled[3, 20, 20] = value  # in one band only
    got, plain = tiles.prepare(filled, units=units), tiles.prepare(good, units=units)
    assert got.valid.sum() == 31 * 41 - 1
    assert not got.valid[20, 20]
    assert (got.dn[:, got.valid] == plain.dn[:, got.valid]).all()
    assert (got.dn[:, :10] == 0).all()
    assert [w.code for w in got.warnings] == ["undeclared-nodata"]
    assert [w.code for w in plain.warnings] == []
    declared = tiles.prepare(filled, units=units, nodata=float(value))
    assert (declared.dn == got.dn).all()
    assert declared.warnings == ()
    filled[:] = value
    with pytest.raises(TileError) as raised:
        tiles.prepare(filled, units=units)
    assert raised.value.code in ("empty-tile", "unknown-units")


def test_nan_and_inf():
    pixels = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)
    pixels[0, 0, 0], pixels[1, 1, 1], pixels[2, 2, 2] = np.nan, np.inf, -np.inf
    got = tiles.prepare(pixels)
    assert np.argwhere(~got.valid).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((7, 41, 41), np.uint16),
        np.full((7, 41, 41), np.nan, np.float32),
        np.concatenate([dn_pixels(count=6), np.zeros((1, 41, 41), np.uint16)]),
    ],
)
def test_an_empty_raster_says_so(pixels):
    with pytest.raises(TileError, match="none of the 1681 pixels is valid") as caught:
        tiles.prepare(pixels)
    assert caught.value.code == "empty-tile"


def test_complex_pixels_are_refused():
    assert code_of(tiles.prepare, dn_pixels().astype(np.complex64)) == "unsupported-pixel-type"


def test_valid_pixels_in_words():
    valid = np.zeros((40, 40), np.bool_)
    assert code_of(tiles.check_valid, valid) == "empty-tile"
    valid[:20] = True
    assert tiles.check_valid(valid) == ()
    valid[0, 0] = False
    (warning,) = tiles.check_valid(valid)
    assert warning.code == "mostly-nodata"
    assert "49.9%" in warning.message


@pytest.mark.parametrize(
    ("height", "width", "row", "col"), [(40, 40, 0, 0), (41, 45, 0, 2), (43, 42, 1, 1), (63, 40, 11, 0)]
)
@pytest.mark.parametrize("mode", [None, "crop"])
def test_the_centre_is_cropped_as_published(height, width, row, col, mode):
    dn = dn_pixels(height, width)
    tile = tiles.fit(dn, all_valid(height, width), mode)
    np.testing.assert_array_equal(tile.dn, dn[:, row : row + 40, col : col + 40])
    assert tile.window == (row, col, 40, 40)
    assert tile.valid_fraction == 1.0


def test_valid_fraction_is_that_of_the_crop():
    dn, valid = dn_pixels(60, 60), all_valid(60, 60)
    valid[:10] = False  # cropped away
    valid[10] = False
    tile = tiles.fit(dn, valid)
    assert tile.valid_fraction == 1 - 40 / 1600
    np.testing.assert_array_equal(tile.dn, dn[:, 10:50, 10:50])  # not filled


@pytest.mark.parametrize("size", [(40, 64), (64, 64), (1001, 1001)])
def test_other_sizes_name_the_three_choices(size):
    with pytest.raises(TileError, match=r"fit=crop.*fit=resize.*fit=grid") as caught:
        tiles.fit(dn_pixels(*size), all_valid(*size))
    assert caught.value.code == "wrong-size"
    assert f"{size[1]} x {size[0]} px" in caught.value.message


@pytest.mark.parametrize("size", [(39, 40), (22, 22), (100, 30)])
def test_small_sizes_name_the_choice_that_takes_them(size):
    with pytest.raises(TileError, match="Send fit=resize") as caught:
        tiles.fit(dn_pixels(*size), all_valid(*size))
    assert "fit=crop" not in caught.value.message
    assert tiles.fit(dn_pixels(*size), all_valid(*size), "resize").dn.shape == (7, 40, 40)


def test_explicit_modes_take_other_sizes():
    large, small = dn_pixels(100, 90), dn_pixels(22, 22)
    assert tiles.fit(large, all_valid(100, 90), "crop").window == (30, 25, 40, 40)
    assert tiles.fit(large, all_valid(100, 90), "resize").window == (0, 0, 100, 90)
    assert tiles.fit(small, all_valid(22, 22), "resize").dn.shape == (7, 40, 40)
    assert code_of(tiles.fit, small, all_valid(22, 22), "crop") == "wrong-size"
    assert code_of(tiles.fit, small, all_valid(22, 22), "stretch") == "bad-parameter"


def test_a_resized_tile_is_zero_where_it_is_invalid():
    dn, valid = dn_pixels(22, 22), all_valid(22, 22)
    valid[5, 5] = False
    tile = tiles.fit(dn, valid, "resize")
    assert 0.98 < tile.valid_fraction < 1
    assert not tile.dn[:, ~tile.valid].any()
    assert tile.dn[:, tile.valid].all()


def test_gaps_that_leave_nothing_of_a_resized_raster():
    dn, valid = dn_pixels(200, 240), all_valid(200, 240)
    valid[::5, ::5] = False
    with pytest.raises(
        TileError, match=r"96.0% of the 240 x 200 px are valid, .* send fit=crop or fit=grid"
    ) as caught:
        tiles.fit(dn, valid, "resize")
    assert caught.value.code == "empty-tile"
    assert tiles.fit(dn, valid, "crop").valid_fraction == 0.96


def test_the_alberta_sized_grid():
    grid = list(tiles.windows(1001, 1001))
    assert len(grid) == 625
    assert grid[0] == (0, 0, Window(0, 0, 40, 40))
    assert grid[26] == (1, 1, Window(40, 40, 40, 40))
    assert grid[-1] == (24, 24, Window(960, 960, 40, 40))


@settings(deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(1, 120))
def test_windows_are_whole_row_major_and_complete(height, width, stride):
    grid = list(tiles.windows(height, width, stride))
    assert len(set(grid)) == len(grid)
    assert grid == sorted(grid)
    for row, col, (row_off, col_off, rows, cols) in grid:
        assert (row_off, col_off, rows, cols) == (row * stride, col * stride, 40, 40)
        assert row_off + 40 <= height
        assert col_off + 40 <= width
    _, _, last = grid[-1]
    assert last.row_off + 40 + stride > height
    assert last.col_off + 40 + stride > width


def test_grids_that_are_not():
    assert code_of(tiles.windows, 39, 100) == "wrong-size"
    assert code_of(tiles.windows, 100, 100, 0) == "bad-parameter"


def test_cutting_a_window():
    dn, valid = dn_pixels(100, 120), all_valid(100, 120)
    valid[40:50, 80:120] = False
    tile = tiles.cut(dn, valid, Window(40, 80, 40, 40))
    np.testing.assert_array_equal(tile.dn, dn[:, 40:80, 80:120])
    assert tile.valid_fraction == 0.75
    assert tile.dn.flags.c_contiguous


def test_fill():
    dn, valid = dn_pixels(40, 40), all_valid(40, 40)
    valid[3, 4] = False
    dn[2, 3, 4] = 0
    assert tiles.fill(dn, valid, "as_is") is dn
    filled = tiles.fill(dn, valid, "band_mean")
    assert filled.dtype == np.uint16
    assert filled[:, 3, 4].tolist() == [9405, 9650, 10426, 10445, 16068, 12699, 10596]
    np.testing.assert_array_equal(filled[:, valid], dn[:, valid])
    assert tiles.fill(dn, all_valid(40, 40), "band_mean") is dn
    batch = tiles.fill(np.stack([dn, dn]), np.stack([valid, all_valid(40, 40)]), "band_mean")
    np.testing.assert_array_equal(batch[0], filled)
    np.testing.assert_array_equal(batch[1], dn)
    assert tiles.fill(dn, valid, "band_mean", mean=(1.0,) * 7)[:, 3, 4].tolist() == [1] * 7


@pytest.mark.parametrize(
    ("gsd", "warned"),
    [(None, False), (30.0, False), (29.9, False), (24.5, False), (10.0, True), (516.0, True)],
)
def test_pixel_size(gsd, warned):
    assert [w.code for w in tiles.pixel_size_warning(gsd)] == ["unusual-pixel-size"] * warned


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(
            [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
        ),
        st.tuples(st.integers(6, 9), st.integers(1, 50), st.integers(1, 50)),
    ),
    st.one_of(st.none(), st.floats()),
    st.sampled_from(["auto", "dn", "reflectance", "reflectance_1e4"]),
    st.sampled_from([None, "crop", "resize"]),
)
def test_any_raster_gives_a_tile_or_a_tile_error(pixels, nodata, units, mode):
    try:
        got = tiles.prepare(pixels, nodata=nodata, units=units)
        tile = tiles.fit(got.dn, got.valid, mode)
    except TileError:
        return
    assert tile.dn.shape == (7, 40, 40)
    assert tile.dn.dtype == np.uint16
    assert (tile.dn[:, tile.valid] >= 1).all()
    assert tile.valid_fraction == tile.valid.mean()
