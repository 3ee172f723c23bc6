"""Datetimes and positions: what is read, what is refused, and the four codes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metadata import (
    Acquisition,
    MetadataError,
    check_position,
    encode,
    parse_datetime,
    parse_tiff_datetime,
)

# Inputs and codes of the published implementation (with the full hour), from the golden files.
GOLDEN = [
    ("2017-06-13T10:10:31", 63.3, 21.26, (24, 10)),
    ("2018-01-01T00:00:00", -33.9, 151.2, (1, 0)),
    ("2020-12-31T23:59:59", 0.0, -179.9, (53, 23)),
    ("2016-02-29T05:30:00", 89.5, 180.0, (9, 5)),
]


def code(week: int, hour: int | None, lat: float | None, lon: float | None) -> np.ndarray:
    angles = [
        week * 2 * math.pi / 52,
        None if hour is None else hour * 2 * math.pi / 24,
        None if lat is None else lat * math.pi / 180,
        None if lon is None else lon * math.pi / 180,
    ]
    return np.array([(0, 0) if a is None else (math.sin(a), math.cos(a)) for a in angles], np.float32)


@pytest.mark.parametrize(("text", "lat", "lon", "week_hour"), GOLDEN)
def test_codes_are_those_of_the_published_implementation(text, lat, lon, week_hour):
    got = encode(parse_datetime(text), lat, lon)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, code(*week_hour, lat, lon), rtol=0, atol=1e-7)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["reference_tiny", "reference_XXS"])
def test_codes_equal_the_golden_files(shared, name):
    with np.load(shared / "golden" / f"{name}.npz") as golden:
        for text, lat, lon, expected in zip(
            golden["time"], golden["lat"], golden["lon"], golden["metadata"], strict=True
        ):
            np.testing.assert_array_equal(encode(parse_datetime(str(text)), float(lat), float(lon)), expected)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2020-08-02T18:31:00Z", "2020-08-02T18:31:00"),
        ("2020-08-02t18:31:00z", "2020-08-02T18:31:00"),
        ("2020-08-02 18:31:00Z", "2020-08-02T18:31:00"),
        ("2020-08-02T18:31Z", "2020-08-02T18:31:00"),
        ("2020-08-02T18:31:00.123456789Z", "2020-08-02T18:31:00.123456"),
        ("2020-08-02T18:31:00+02:00", "2020-08-02T16:31:00"),
        ("2020-12-31T23:30:00-05:30", "2021-01-01T05:00:00"),
        ("2021-01-01T01:00:00+02:00", "2020-12-31T23:00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59"),  # a leap second
        ("2024-02-29T00:00:00-00:00", "2024-02-29T00:00:00"),
    ],
)
def test_rfc_3339(text, when):
    got = parse_datetime(text)
    assert got == Acquisition(datetime.fromisoformat(when).replace(tzinfo=UTC))


def test_without_a_zone_utc_is_assumed_and_said():
    assert parse_datetime("2020-08-02T18:31:00") == Acquisition(
        datetime(2020, 8, 2, 18, 31, tzinfo=UTC), assumed_utc=True
    )


def test_a_date_has_a_week_but_no_hour():
    got = parse_datetime("2021-01-03")
    assert got == Acquisition(datetime(2021, 1, 3, tzinfo=UTC), has_hour=False)
    assert got.text == "2021-01-03"
    np.testing.assert_allclose(encode(got, None, None), code(53, None, None, None), atol=1e-7)


@pytest.mark.parametrize(
    ("day", "week"),
    [
        ("2018-12-31", 1),  # the week of the next year
        ("2021-01-01", 53),  # the week of the last year
        ("2020-12-31", 53),
        ("2024-02-29", 9),
        ("2023-01-01", 52),
    ],
)
def test_iso_weeks_at_year_ends(day, week):
    np.testing.assert_allclose(
        encode(parse_datetime(day), None, None)[0], code(week, None, None, None)[0], atol=1e-7
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2020-13-01",
        "2021-02-29",
        "2020-08-02T24:00:00Z",
        "2020-08-02T10:60:00Z",
        "2020-08-02T10:00:61Z",
        "2020-08-02T10Z",
        "2020-08-02T10:00:00+24:00",
        "2020-08-02T10:00:00+0200",
        "20200802",
        "2020-W31-7",
        "0000-01-01",
        "0001-01-01T00:00:00+10:00",  # before the first day there is
        "9999-12-31T23:00:00-10:00",
        "２０２０-08-02",
        "2020-08-02T10:00:00Z\n2020",
        "1596393060",
        "x" * 100_000,
    ],
)
def test_other_texts_are_refused_with_both_forms_named(text):
    with pytest.raises(MetadataError, match=r"RFC 3339 .*2020-08-02T18:31:00Z.*date") as caught:
        parse_datetime(text)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        got = parse_datetime(text)
    except MetadataError:
        return
    assert got.when.tzinfo is UTC


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),  # noqa: DTZ001 the zone follows
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_any_moment_survives_any_zone(moment, minutes):
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    got = parse_datetime(aware.isoformat())
    assert got.when == aware
    assert parse_datetime(got.text) == got


@given(st.datetimes(timezones=st.just(UTC)), st.floats(-90, 90), st.floats(-180, 180))
def test_known_values_lie_on_the_circle_and_unknown_ones_in_its_centre(when, lat, lon):
    known = encode(Acquisition(when), lat, lon)
    assert known.shape == (4, 2)
    np.testing.assert_allclose(np.hypot(*known.T), 1, atol=1e-6)
    assert not encode(None, None, None).any()
    assert encode(None, lat, lon)[:2].any() == np.False_
    assert encode(Acquisition(when), None, None)[2:].any() == np.False_


def test_the_date_line_is_one_place_and_the_poles_are_two():
    np.testing.assert_allclose(encode(None, 0, 180), encode(None, 0, -180), atol=1e-6)
    assert encode(None, 90, 0)[2, 0] == 1
    assert encode(None, -90, 0)[2, 0] == -1


@pytest.mark.parametrize(("hour", "read_as"), [(0, 0), (9, 9), (10, 1), (19, 1), (20, 2), (23, 2)])
def test_the_first_digit_convention(hour, read_as):
    when = Acquisition(datetime(2020, 8, 2, hour, tzinfo=UTC))
    full = Acquisition(datetime(2020, 8, 2, read_as, tzinfo=UTC))
    np.testing.assert_array_equal(
        encode(when, None, None, hour_convention="first_digit"), encode(full, None, None)
    )


@pytest.mark.parametrize(
    ("lat", "lon", "says"),
    [
        (1.0, None, "lat came without lon"),
        (None, 1.0, "lon came without lat"),
        (90.001, 0.0, "lat is 90.001.*swapped"),
        (-91.0, 0.0, "between -90 and 90"),
        (0.0, 180.5, "lon is 180.5.*between -180 and 180"),
        (math.nan, 0.0, "lat is nan"),
        (0.0, math.inf, "lon is inf"),
    ],
)
def test_bad_positions(lat, lon, says):
    with pytest.raises(MetadataError, match=says):
        check_position(lat, lon)
    with pytest.raises(MetadataError, match=says):
        encode(None, lat, lon)


def test_good_positions():
    for lat, lon in [(None, None), (90, 180), (-90, -180), (0, 0)]:
        check_position(lat, lon)


def test_the_tiff_tag():
    assert parse_tiff_datetime("2020:08:02 18:31:00\0") == Acquisition(
        datetime(2020, 8, 2, 18, 31, tzinfo=UTC), assumed_utc=True
    )
    for text in ("2020-08-02 18:31:00", "    :  :     :  :  ", "", "2020:13:02 18:31:00"):
        with pytest.raises(MetadataError):
            parse_tiff_datetime(text)
