"""The sun's height against what is known of it."""

from __future__ import annotations

from datetime import datetime

import pytest

from service import sun


@pytest.mark.parametrize(
    ("when", "lat", "lon", "expected"),
    [
        ("2020-03-20T12:07", 0, 0, 90),  # equinox, the equation of time being -7 minutes
        ("2020-06-21T12:02", 23.44, 0, 90),
        ("2020-06-21T00:02", 66.56, 0, 0),  # midnight sun on the polar circle
        ("2020-12-21T00:00", 90, 0, -23.44),
        ("2020-12-21T12:00", -90, 123, 23.44),
        ("2015-07-10T14:34:36", 72.16, -39.07, 40.0),  # as the MTL of a scene there says
        ("2020-11-03T11:43:30", 0, 0, 74.8),  # the sun is 16.4 minutes early, at -15.2 degrees
    ],
)
def test_elevation(when: str, lat: float, lon: float, expected: float) -> None:
    assert sun.elevation(datetime.fromisoformat(when), lat, lon) == pytest.approx(expected, abs=0.5)
