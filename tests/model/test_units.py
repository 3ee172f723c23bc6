"""What values are taken for, and their exact conversion to DN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tile_errors import TileError
from model.units import Units, resolve_units, to_dn
from tests.rasters import dn_pixels

DN = dn_pixels()
REFLECTANCE = (DN * 2.75e-5 - 0.2).astype(np.float32)
TIMES_10_000 = np.rint(REFLECTANCE * 10_000).astype(np.int16)
ALL = np.ones(DN.shape[1:], np.bool_)
NONE_MISSING = np.zeros(DN.shape, np.bool_)


def resolve(pixels, valid=ALL, **given):
    units, warnings = resolve_units(pixels, valid, **given)
    return units.name, [w.code for w in warnings]


def convert(pixels, **given):
    units, _ = resolve_units(pixels, np.ones(pixels.shape[1:], np.bool_), **given)
    return to_dn(pixels, np.zeros(pixels.shape, np.bool_), units)


def refused(pixels, valid=ALL, **given) -> TileError:
    with pytest.raises(TileError) as caught:
        resolve_units(pixels, valid, **given)
    return caught.value


def test_auto():
    assert resolve(DN) == ("dn", [])
    assert resolve(DN.astype(np.int32), units=None) == ("dn", [])
    assert resolve(REFLECTANCE) == ("reflectance", [])
    assert resolve(REFLECTANCE.astype(np.float64)) == ("reflectance", [])


def test_auto_looks_at_valid_pixels_only():
    half = ALL.copy()
    half[:, :30] = False
    pixels = DN.copy()
    pixels[:, ~half] = 0
    assert resolve(pixels, half) == ("dn", [])
    floats = REFLECTANCE.copy()
    floats[:, ~half] = np.nan
    assert resolve(floats, half) == ("reflectance", [])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_auto_refuses_reflectance_times_10_000_and_names_it(dtype):
    error = refused(TIMES_10_000.astype(dtype))
    assert error.code == "unknown-units"
    assert f"{np.median(TIMES_10_000):.6g}" in error.message  # the values seen
    assert "send units=reflectance_1e4; where 1,000 was added" in error.message  # which Sentinel-2 has
    assert error.message.endswith("send scale=0.0001 and offset=-0.1")
    for choice in ("units=dn", "units=reflectance ", "scale="):
        assert choice in error.message


def test_auto_refuses_floats_on_the_scale_of_dn():
    error = refused(DN.astype(np.float32))
    assert error.code == "unknown-units"
    assert error.message.endswith("send units=dn")


def snow(dtype=np.uint16):
    """Reflectance times 10,000: 0.9 in visible light, where DN are as high, 0.06 in shortwave infrared."""
    levels = np.array([9_200, 9_300, 9_000, 9_100, 8_200, 700, 500])[:, None, None]
    return (levels + np.arange(DN[0].size).reshape(DN.shape[1:]) % 200).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_auto_does_not_take_snow_times_10_000_for_dn(dtype):
    error = refused(snow(dtype))
    assert error.code == "unknown-units"
    assert "(594 in the darkest band;" in error.message
    assert "send units=reflectance_1e4" in error.message
    assert resolve(snow(dtype), units="reflectance_1e4") == ("reflectance_1e4", [])
    assert resolve(snow(dtype), units="dn") == ("dn", ["unlikely-units"])  # that is -0.18 in two bands


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (REFLECTANCE * 100, "in percent, send scale=0.01 and offset=0"),
        (np.clip(REFLECTANCE * 500, 1, 255).astype(np.uint8), "8 bits are a picture's"),
    ],
)
def test_auto_guesses_no_scale_that_would_give_darkness(pixels, words):
    message = refused(pixels).message
    assert words in message
    assert "as in HLS" not in message


def test_auto_thresholds():
    assert resolve(np.full_like(DN, 5_500)) == ("dn", [])
    assert refused(np.full_like(DN, 5_499)).code == "unknown-units"
    assert resolve(np.full_like(REFLECTANCE, 2.0)) == ("reflectance", [])
    assert refused(np.full_like(REFLECTANCE, 2.001)).code == "unknown-units"
    assert refused(np.full(DN.shape, 255, np.uint8)).code == "unknown-units"


@given(st.lists(st.integers(5_000, 6_000), min_size=1, max_size=9))
def test_auto_goes_by_the_median(values):
    pixels = np.array(values, np.uint16).reshape(1, 1, -1)
    valid = np.ones((1, len(values)), np.bool_)
    if np.median(values) >= 5_500:
        assert resolve(pixels, valid) == ("dn", [])
    else:
        assert refused(pixels, valid).code == "unknown-units"


def test_tags_win_over_values():
    tags = {"file_scales": (2.75e-5,) * 7, "file_offsets": (-0.2,) * 7}
    assert resolve(DN, **tags) == ("scale_offset", [])
    np.testing.assert_array_equal(convert(DN, **tags), DN)
    assert resolve(TIMES_10_000, file_scales=(1e-4,) * 7) == ("scale_offset", [])
    assert resolve(DN, file_scales=(1.0,) * 7, file_offsets=(0.0,) * 7) == ("dn", [])


def test_tags_are_per_band():
    scales = tuple(1e-4 * (1 + i) for i in range(7))
    pixels = np.stack([np.full((4, 4), 1_000 / (1 + i), np.float64) for i in range(7)])
    assert np.unique(convert(pixels, file_scales=scales)).tolist() == [round(0.3 / 2.75e-5)]


@pytest.mark.parametrize("scale", [math.nan, math.inf, 0.0])
def test_unusable_tags(scale):
    assert refused(DN, file_scales=(scale,) * 7).code == "unknown-units"


def test_parameters_win_over_tags():
    tags = {"file_scales": (123.0,) * 7, "file_offsets": (5.0,) * 7}
    assert resolve(DN, units="dn", **tags) == ("dn", [])
    assert resolve(DN, scale=2.75e-5, offset=-0.2, **tags) == ("scale_offset", [])
    np.testing.assert_array_equal(
        convert(TIMES_10_000, scale=1e-4), convert(TIMES_10_000, units="reflectance_1e4")
    )
    np.testing.assert_array_equal(convert(REFLECTANCE, offset=0.0), convert(REFLECTANCE, units="reflectance"))


@pytest.mark.parametrize(
    "given",
    [
        {"units": "toa"},
        {"units": "x" * 10_000},
        {"units": "dn", "scale": 1.0},
        {"units": "reflectance", "offset": 0.0},
        {"scale": 0.0},
        {"scale": math.nan},
        {"offset": math.inf},
    ],
)
def test_bad_parameters(given):
    error = refused(DN, **given)
    assert error.code == "bad-parameter"
    assert "expected" in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("pixels", "given"),
    [
        (TIMES_10_000, {"units": "dn"}),
        (REFLECTANCE, {"units": "dn"}),
        (DN, {"units": "reflectance"}),
        (TIMES_10_000, {"units": "reflectance"}),
        (DN, {"units": "reflectance_1e4"}),
        (REFLECTANCE, {"units": "reflectance_1e4"}),
        (DN, {"scale": 1.0}),
        (TIMES_10_000, {"file_scales": (2.75e-5,) * 7, "file_offsets": (-0.2,) * 7}),
    ],
)
def test_an_unlikely_unit_is_obeyed_with_a_warning(pixels, given):
    assert resolve(pixels, **given)[1] == ["unlikely-units"]


def test_snow_times_10_000_in_a_signed_type_is_not_taken_for_dn_without_a_word():
    snow = np.full(DN.shape, 8_500, np.int16)
    assert resolve(snow) == ("dn", ["assumed-dn"])
    assert resolve(snow, units="dn") == ("dn", [])
    assert resolve(snow.astype(np.uint16)) == ("dn", [])  # dark ground as well
    assert resolve(np.full(DN.shape, 800, np.int16), units="dn")[1] == ["unlikely-units"]


def test_what_esa_adds_to_sentinel_2_is_not_taken_for_reflectance_without_a_word():
    added = TIMES_10_000 + 1_000
    units, (warning,) = resolve_units(added, ALL, units="reflectance_1e4")
    assert (units.name, warning.code) == ("reflectance_1e4", "possible-offset")
    assert "scale=0.0001 and offset=-0.1" in warning.message
    assert resolve(added, file_scales=(1e-4,) * 7)[1] == ["possible-offset"]
    assert resolve(added, scale=1e-4, offset=-0.1) == ("scale_offset", [])
    same = convert(TIMES_10_000, units="reflectance_1e4")
    np.testing.assert_array_equal(convert(added, scale=1e-4, offset=-0.1), same)


@pytest.mark.parametrize(
    ("pixels", "given"),
    [
        (DN, {"units": "dn"}),
        (REFLECTANCE, {"units": "reflectance"}),
        (TIMES_10_000, {"units": "reflectance_1e4"}),
        (DN, {"scale": 2.75e-5, "offset": -0.2}),
        (np.full(DN.shape, 50_000, np.uint16), {"units": "dn"}),  # snow
        (np.full(DN.shape, 0.01, np.float32), {"units": "reflectance"}),  # deep water
    ],
)
def test_a_likely_unit_has_no_warning(pixels, given):
    assert resolve(pixels, **given)[1] == []


def test_golden_conversions():
    def one(value, dtype, name):
        scale = {"reflectance": 1.0, "reflectance_1e4": 1e-4, "dn": 2.75e-5}[name]
        pixels = np.array([[[value]]], dtype)
        units = Units(name, (scale,), (-0.2 if name == "dn" else 0.0,))
        return int(to_dn(pixels, np.zeros((1, 1, 1), np.bool_), units)[0, 0, 0])

    # round((r + 0.2) / 2.75e-5), by hand
    assert one(0.0, np.float64, "reflectance") == 7_273
    assert one(0.1, np.float64, "reflectance") == 10_909
    assert one(1.0, np.float64, "reflectance") == 43_636
    assert one(1000, np.int16, "reflectance_1e4") == 10_909
    assert one(-500, np.int16, "reflectance_1e4") == 5_455
    assert one(-0.2, np.float64, "reflectance") == 1  # clipped: 0 is nodata
    assert one(-0.29, np.float64, "reflectance") == 1
    assert one(-0.31, np.float64, "reflectance") == 0  # below any reflectance: missing
    assert one(-9999, np.float32, "reflectance") == 0
    assert one(-9999, np.int16, "reflectance_1e4") == 0
    assert one(-9999, np.int32, "dn") == 0
    assert one(-3000, np.int32, "dn") == 1
    assert one(9.0, np.float64, "reflectance") == 65_535
    assert one(1e300, np.float64, "reflectance") == 65_535
    assert one(70_000, np.int32, "dn") == 65_535
    assert one(-3, np.int16, "dn") == 1
    assert one(9_000.4, np.float32, "dn") == 9_000


@given(st.integers(1, 65_535))
def test_dn_survive_the_way_over_reflectance(dn):
    reflectance = np.full((1, 1, 1), dn * 2.75e-5 - 0.2)
    missing = np.zeros((1, 1, 1), np.bool_)
    assert to_dn(reflectance, missing, Units("reflectance", (1.0,), (0.0,)))[0, 0, 0] == dn
    # float32 keeps 24 bits, enough for the 16 of a DN
    single = reflectance.astype(np.float32)
    assert to_dn(single, missing, Units("reflectance", (1.0,), (0.0,)))[0, 0, 0] == dn
    tagged = Units("scale_offset", (2.75e-5,), (-0.2,))
    assert to_dn(np.full((1, 1, 1), dn, np.uint16), missing, tagged)[0, 0, 0] == dn


def test_missing_values_become_zero_and_inputs_stay():
    pixels = REFLECTANCE.copy()
    pixels[3, 5, 5] = np.nan
    pixels[4, 6, 6] = np.inf
    before = pixels.copy()
    missing = ~np.isfinite(pixels)
    dn = to_dn(pixels, missing, Units("reflectance", (1.0,) * 7, (0.0,) * 7))
    assert dn[3, 5, 5] == dn[4, 6, 6] == 0
    assert dn[~missing].min() > 0
    np.testing.assert_array_equal(pixels, before)


def test_absurd_floats_do_not_escape_as_warnings():
    pixels = np.full(DN.shape, 1.7e308)
    pixels[:, ::2] = -1.7e308
    assert refused(pixels).code == "unknown-units"
    assert resolve(pixels, units="reflectance")[1] == ["unlikely-units"]
    assert resolve(pixels, scale=1e300)[1] == ["unlikely-units"]


def test_a_large_raster_is_looked_at_on_a_coarser_grid():
    pixels = np.full((7, 1200, 1200), 9_000, np.uint16)
    valid = np.zeros((1200, 1200), np.bool_)
    valid[1, 1] = True  # off the coarse grid: then all are looked at
    pixels[:, ~valid] = 0
    assert resolve(pixels, valid) == ("dn", [])


@pytest.mark.shared
def test_all_real_tiles_are_taken_for_dn(shared):
    lowest, count = math.inf, 0
    for path in sorted((shared / "data" / "tiles").glob("*.npz")):
        with np.load(path) as tiles:
            for dn in tiles["x"]:
                valid = (dn > 0).all(axis=0)
                if not valid.any():
                    continue
                units, warnings = resolve_units(dn, valid)
                assert (units.name, warnings) == ("dn", ())
                lowest, count = min(lowest, float(np.median(dn[:, valid]))), count + 1
    assert count > 5_600
    assert lowest >= 7_300
