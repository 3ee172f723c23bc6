"""Which bands are taken, and what a person is told who sent others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.band_selection import select_bands
from model.tile_errors import TileError

SR = [f"SR_B{n}" for n in range(1, 8)]
COMMON = ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]
S2_L1C = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
S2_EUROSAT = [*S2_L1C[:8], *S2_L1C[9:], "B8A"]
FIRST_SEVEN = (1, 2, 3, 4, 5, 6, 7)


def refused(*args, **kwargs) -> TileError:
    with pytest.raises(TileError) as caught:
        select_bands(*args, **kwargs)
    assert caught.value.message == str(caught.value)
    return caught.value


def ready(error: TileError, nth: int = 0) -> str:
    """The value of the nth `bands=` that the message offers."""
    return error.message.split("bands=")[nth + 1].split(" ")[0].rstrip(".;,")


def test_seven_unnamed_bands_are_taken_in_order():
    assert select_bands(7) == FIRST_SEVEN
    assert select_bands(7, [None] * 7) == FIRST_SEVEN
    assert select_bands(7, ["", " ", None, "band four", "x", "y", "z"]) == FIRST_SEVEN
    assert select_bands(7, None or [], "  ") == FIRST_SEVEN


@pytest.mark.parametrize("names", [SR, COMMON, [n.lower() for n in SR], [f"B{n}" for n in range(1, 8)]])
def test_names_win_over_order(names):
    backwards = names[::-1]
    assert select_bands(7, backwards) == (7, 6, 5, 4, 3, 2, 1)
    assert select_bands(9, ["QA_PIXEL", *names, "ST_B10"]) == (2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    "names", [[], [None] * 7, SR, COMMON, [*S2_L1C[:6], "x"], [None] * 6 + ["sr_b7_mean"]]
)
@pytest.mark.parametrize("last", [None, "", "alpha", "mask", "valid pixels"])
def test_a_last_band_that_is_alpha_is_none_of_the_seven(names, last):
    given = [*(names or [None] * 7), last]
    assert select_bands(8, given, alpha=True) == FIRST_SEVEN
    assert select_bands(8, given, "8,2,3,4,5,6,7", alpha=True) == (8, 2, 3, 4, 5, 6, 7)


def test_alpha_with_the_name_of_a_band_is_that_band():
    assert select_bands(7, SR, alpha=True) == FIRST_SEVEN
    assert select_bands(8, ["x", *SR], alpha=True) == (2, 3, 4, 5, 6, 7, 8)
    assert select_bands(7, [None] * 6 + ["B7 mean"], alpha=True) == FIRST_SEVEN


@pytest.mark.parametrize("last", [None, "alpha", "valid pixels"])
def test_six_bands_and_alpha_are_not_seven(last):
    error = refused(7, [None] * 6 + [last], alpha=True)
    assert error.code == "ambiguous-bands"
    assert ready(error, 1) == "1,2,3,4,5,6,7"
    assert "ALPHA" in error.message
    assert select_bands(7, [None] * 6 + [last], "1,2,3,4,5,6,7", alpha=True) == FIRST_SEVEN


def test_alpha_does_not_count_where_the_product_is_guessed():
    assert "HLS L30" in refused(11, alpha=True).message
    assert "A USGS delivery" in refused(2, alpha=True).message


def test_plain_names_with_leading_zero():
    assert select_bands(8, [f"B{n:02}" for n in range(1, 9)]) == FIRST_SEVEN


def test_landsat_level_1_bands_without_thermal():
    assert select_bands(8, [f"B{n}" for n in range(1, 9)]) == FIRST_SEVEN


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (S2_L1C, "1,2,3,4,9,12,13"),
        (S2_EUROSAT, "1,2,3,4,13,11,12"),
        ([n for n in S2_L1C if n != "B10"], "1,2,3,4,9,11,12"),
        (["B01", "B02", "B03", "B04", "B08", "B11", "B12"], "1,2,3,4,5,6,7"),
        (["B12", "B11", "B8A", "B04", "B03", "B02", "B01"], "7,6,5,4,3,2,1"),
    ],
)
def test_sentinel_2_is_ambiguous_and_the_answer_is_ready(names, expected):
    error = refused(len(names), names)
    assert error.code == "ambiguous-bands"
    assert ready(error) == expected
    assert select_bands(len(names), names, ready(error)) == tuple(map(int, expected.split(",")))


def test_hls_names_are_ambiguous_too():
    names = [*(f"B{n:02}" for n in range(1, 8)), "B09", "B10", "B11"]  # HLS L30: B11 is thermal
    error = refused(10, names)
    assert error.code == "ambiguous-bands"
    assert ready(error) == "1,2,3,4,5,6,7"


def test_sentinel_2_with_bands_missing_says_which():
    error = refused(7, ["B01", "B03", "B04", "B08", "B8A", "B11", "B12"])
    assert error.code == "ambiguous-bands"
    assert error.message.endswith("not all there once: B2")


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (6, []),
        (6, ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"]),
        (7, ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B6", "SR_B7"]),
        (6, COMMON[1:]),
        (7, [*COMMON[1:], "lwir"]),
        (6, ["B02", "B03", "B04", "B8A", "B11", "B12"]),
        (7, ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]),
    ],
)
def test_files_that_lack_the_coastal_band(count, names):
    error = refused(count, names)
    assert error.code == "missing-coastal"
    assert "coastal" in error.message
    assert "order" in error.message


def test_unnamed_files_of_known_products_get_their_answer():
    assert ready(refused(10)) == "1,2,3,4,5,6,7"
    assert ready(refused(13)) == "1,2,3,4,9,12,13"
    assert ready(refused(13), 1) == "1,2,3,4,13,11,12"
    assert ready(refused(12)) == "1,2,3,4,9,11,12"
    for count in (10, 12, 13):
        assert "units=reflectance_1e4" in refused(count).message
    for count in (10, 12, 13, 20):
        assert refused(count).code == "wrong-band-count"


def test_one_file_of_a_usgs_delivery():
    error = refused(1, [None], source="LC08_L2SP_005009_20150710_20200908_02_T2_SR_B3.TIF")
    assert error.code == "wrong-band-count"
    assert "This file is SR_B3; missing are SR_B1, SR_B2, SR_B4, SR_B5, SR_B6, SR_B7" in error.message
    assert "landmoe stack FOLDER -o scene.tif" in error.message
    assert "QA_PIXEL, none of the seven" in refused(1, source="LC08_QA_PIXEL.TIF").message
    assert "This file is SR_B5" in refused(1, ["SR_B5"]).message
    unnamed = refused(1, source="x.tif").message
    assert "Six of the seven are missing" in unnamed
    assert "one file of its seven" in unnamed


@pytest.mark.parametrize("count", [0, 2, 3, 5])
def test_too_few(count):
    error = refused(count)
    assert error.code == "wrong-band-count"
    assert f"{count} band" in error.message
    assert "SR_B7" in error.message


def test_some_names_missing_are_listed():
    error = refused(8, [*SR[:6], "pan", "cirrus"])
    assert error.code == "wrong-band-count"
    assert "No band is named SR_B7" in error.message


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["red", "green", "blue", "nir", "swir1", "swir2", "coastal"], "7,3,2,1,4,5,6"),
        (["SR_B2", "SR_B1", None, None, None, None, None], None),
        ([f"LC08_L2SP_043024_20200802_20200914_02_T1_SR_B{n}.TIF" for n in "7654321"], "7,6,5,4,3,2,1"),
        ([f"SR_B{n}_median" for n in "2134567"], "2,1,3,4,5,6,7"),
        ([f"0_srB{n}" for n in "7654321"], "7,6,5,4,3,2,1"),
        ([f"Band {n}" for n in "7654321"], "7,6,5,4,3,2,1"),
        ([f"Band {n}" for n in "2345678"], None),
        ([None, None, None, None, None, None, "QA_PIXEL"], None),
        ([f"nbart_{name}" for name in (*COMMON[1:], "coastal_aerosol")], "7,1,2,3,4,5,6"),
        (
            [f"{name} (median)" for name in ("Red", "Green", "Blue", "NIR", "SWIR 1", "SWIR 2", "Coastal")],
            "7,3,2,1,4,5,6",
        ),
        (
            ["Near infrared", "Red", "Ultra blue", "Shortwave infrared 1", "Green", "Blue", "SWIR2"],
            "3,6,5,2,1,4,7",
        ),
        (["blue (0.48)", "green", "red", "nir", "swir1", "swir2", "temperature"], None),
        ([*(f"B{n}" for n in range(1, 6)), "B6_VCID_1", "B7"], None),  # ETM+, which has thermal there
        ([None, None, None, None, "median red edge 2", None, None], None),
        (["ndvi", None, None, None, None, None, None], None),
    ],
)
def test_seven_bands_whose_names_contradict_the_order(names, expected):
    error = refused(7, names)
    assert error.code == "ambiguous-bands"
    assert error.message.count("bands=") == 2
    if expected:
        assert ready(error) == expected


@pytest.mark.parametrize(
    "spelling",
    ["LC08_T1_SR_B{}.TIF", "SR_B{}_mean", "20200802_SR_B{}", "srB{}", "Band {}", "layer {}", "b{} of 7"],
)
def test_other_spellings_in_order_are_fine(spelling):
    assert select_bands(7, [spelling.format(n) for n in range(1, 8)]) == FIRST_SEVEN


def test_synonyms_in_order_are_fine():
    assert select_bands(7, ["coastal", "blue", "green", "red", "nir", "swir1", "swir2"]) == FIRST_SEVEN


@pytest.mark.parametrize(
    "names",
    [
        [f"nbart_{name}" for name in ("coastal_aerosol", "blue", "green", "red", "nir", "swir_1", "swir_2")],
        [
            "Ultra blue",
            "Blue",
            "Green",
            "Red",
            "Near infra-red",
            "Short-wave infrared 1",
            "Shortwave infrared 2",
        ],
        [f"blue_nile_{n}" for n in range(1, 8)],  # a word that is in all says nothing
        [f"red_river_SR_B{n}" for n in range(1, 8)],
        ["0.443", "0.482", "0.561", "0.655", "0.865", "1.609", "2.201"],
    ],
)
def test_names_that_say_no_other_order(names):
    assert select_bands(7, names) == FIRST_SEVEN


def test_bands_as_asked():
    assert select_bands(13, [], "1,2,3,4,13,11,12") == (1, 2, 3, 4, 13, 11, 12)
    assert select_bands(13, S2_EUROSAT, " B01, b2,B03 ,B04,B8A,B11,B12") == (1, 2, 3, 4, 13, 11, 12)
    assert select_bands(8, ["a", *SR], "SR_B1,SR_B2,SR_B3,SR_B4,SR_B5,SR_B6,8") == (2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("bands", "says"),
    [
        ("1,2,3", "names 3 bands; expected seven"),
        ("1,2,3,4,5,6,7,8", "names 8 bands"),
        ("0,1,2,3,4,5,6", "no band 0"),
        ("1,2,3,4,5,6,9", "no band 9; the file has 8 bands"),
        ("1,2,3,4,5,6,-1", "no band is named '-1'"),
        ("1,2,3,4,5,6,6", "band 6 more than once"),
        ("1,2,3,4,5,6,SR_B9", "no band is named 'SR_B9'"),
        ("1,2,3,4,5,6,same", "bands 7, 8 are all named 'same'"),
        ("1,2,3,4,5,6,", "no band is named ''"),
        ("1,2,3,4,5,6,７", "no band is named"),
        ("1,2,3,4,5,6," + "9" * 400, "no band 9"),
        ("," * 10_000, "expected seven"),
    ],
)
def test_bands_that_cannot_be_used(bands, says):
    error = refused(8, ["", "", "", "", "", "", "same", "same"], bands)
    assert error.code == "bad-parameter"
    assert says in error.message
    assert len(error.message) < 600


@given(
    st.integers(0, 20),
    st.lists(st.one_of(st.none(), st.sampled_from(SR + COMMON + S2_L1C), st.text(max_size=5)), max_size=22),
    st.one_of(st.none(), st.text(alphabet="0123456789,BSR_ab", max_size=30)),
)
def test_seven_distinct_bands_of_the_file_or_an_error(count, names, bands):
    try:
        got = select_bands(count, names, bands)
    except TileError:
        return
    assert len(set(got)) == 7
    assert all(1 <= index <= count for index in got)
