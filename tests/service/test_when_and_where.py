"""What an answer warns of: times and places that are doubtful, pixels of another size or turned."""

from __future__ import annotations

import math

import pytest
from affine import Affine
from starlette.testclient import TestClient

from tests.rasters import ORIGIN, dn_pixels, geotiff
from tests.service.embed_requests import send
from tests.service.test_describe import warnings


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize("creation", [{}, {"compress": "zstd"}], ids=["plain", "by GDAL"])
@pytest.mark.parametrize(
    ("said", "params", "when", "source", "codes"),
    [
        ("2020-08-02T09:58:12.5Z", {}, "2020-08-02T09:58:12.500000Z", "file", []),
        ("2020-08-02T09:58:12", {}, "2020-08-02T09:58:12Z", "file", ["assumed-utc"]),
        ("2020-08-02", {}, "2020-08-02", "file", []),
        ("yesterday", {}, None, "missing", ["unreadable-datetime-tag"]),
        ("2020-08-02T09:58:12Z", {"datetime": "2020-08-03"}, "2020-08-03", "request", []),
        ("2020-08-02T09:58:12Z", {"datetime_source": "none"}, None, "missing", []),
    ],
)
def test_when_a_file_was_taken_as_landmoe_stack_tags_it(
    client: TestClient,
    said: str,
    params: dict[str, str],
    when: str | None,
    source: str,
    codes: list[str],
    creation: dict[str, str],
    fit: str,
) -> None:
    data = geotiff(tags={"ACQUISITION_DATETIME": said}, **creation)
    [item] = send(client, data, fit=fit, **params).json()["data"]
    assert (item["datetime"], item["metadata_source"]["datetime"]) == (when, source)
    assert [warning["code"] for warning in item["warnings"]] == codes


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        (30.0, -30.0, None),
        (30.0, 30.0, "from south to north, columns from west to east"),
        (-30.0, -30.0, "from north to south, columns from east to west"),
    ],
)
def test_rasters_that_are_not_north_up(
    client: TestClient, columns: float, rows: float, words: str | None, fit: str
) -> None:
    data = geotiff(transform=Affine(columns, 0.0, ORIGIN[0], 0.0, rows, ORIGIN[1]))
    found = warnings(client, data, fit=fit)
    assert list(found) == ([] if words is None else ["not-north-up"])
    assert words is None or words in found["not-north-up"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("degrees", "words"),  # counterclockwise
    [
        (40, None),  # closer to north than to anything else
        (50, "rows run from west to east, columns from south to north"),
        (90, "rows run from west to east, columns from south to north"),
        (-60, "rows run from east to west, columns from north to south"),
        (170, "rows run from south to north, columns from east to west"),
    ],
)
def test_rasters_that_are_turned(client: TestClient, degrees: int, words: str | None, fit: str) -> None:
    along, across = 30 * math.cos(math.radians(degrees)), 30 * math.sin(math.radians(degrees))
    turned = Affine(along, across, ORIGIN[0], across, -along, ORIGIN[1])
    found = warnings(client, geotiff(transform=turned), fit=fit)
    assert list(found) == ([] if words is None else ["not-north-up"])
    assert words is None or words in found["not-north-up"]


@pytest.mark.parametrize(
    ("crs", "origin", "words"),
    [
        ("EPSG:3031", (0.0, 1_500_000.0), None),  # on the meridian of Greenwich, which is up in Antarctica
        ("EPSG:3031", (1_500_000.0, 0.0), "rows run from west to east"),
        ("EPSG:3031", (0.0, -1_500_000.0), "rows run from south to north, columns from east to west"),
        ("EPSG:2053", (50_000.0, 2_900_000.0), "rows run from south to north, columns from east to west"),
        ("EPSG:5070", (-2_200_000.0, 2_000_000.0), None),  # the north-west of the United States, turned by 17
    ],
)
def test_up_is_north_on_the_ground_not_in_the_crs(
    client: TestClient, crs: str, origin: tuple[float, float], words: str | None
) -> None:
    found = warnings(client, geotiff(crs=crs, origin=origin))
    assert list(found) == ([] if words is None else ["not-north-up"])
    assert words is None or words in found["not-north-up"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_place_that_is_none(client: TestClient, fit: str) -> None:
    swapped = geotiff(crs="EPSG:4326", origin=(51.0, 114.0), pixel_size=0.0003)  # y is the longitude
    [item] = send(client, swapped, fit=fit).json()["data"]
    assert (item["lat"], item["metadata_source"]["location"]) == (None, "missing")
    told = {warning["code"]: warning["message"] for warning in item["warnings"]}
    assert "x = 51.00615, y = 113.9938 of the CRS EPSG:4326" in told["unresolved-georeferencing"]
    assert warnings(client, swapped, location_source="none") == {}
    assert warnings(client, geotiff(crs=None)) == {}  # which may well have none


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("2020-08-02T09:58:12Z", None),
        ("2020-08-02", None),
        ("2020-08-03T01:00:00+09:00", None),
        ("2020-08-04T10:00:00Z", "other-datetime"),
        ("2019-08-02", "other-datetime"),
    ],
)
def test_another_time_than_the_files(client: TestClient, when: str, code: str | None, fit: str) -> None:
    data = geotiff(tags={"ACQUISITION_DATETIME": "2020-08-02T09:58:12Z"})
    found = warnings(client, data, fit=fit, datetime=when)
    assert list(found) == ([] if code is None else [code])
    assert code is None or "the file 2020-08-02T09:58:12Z" in found[code]


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("1970-01-01T10:00:00Z", "before Landsat 8"),
        ("2013-02-10", "before Landsat 8"),
        ("2013-04-01", None),
        ("2999-01-01", "in the future"),
    ],
)
def test_times_at_which_nothing_was_taken(client: TestClient, when: str, words: str | None) -> None:
    found = warnings(client, geotiff(), datetime=when)
    assert list(found) == ([] if words is None else ["unlikely-datetime"])
    assert words is None or words in found["unlikely-datetime"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("params", "night"),
    [
        ({"datetime": "2020-08-02T18:31:00Z"}, False),
        ({"datetime": "2020-08-02T11:31:00-07:00"}, False),
        ({"datetime": "2020-12-02T11:31:00Z"}, True),  # half past eleven there
        ({"datetime": "2020-12-02T11:31:00Z", "location_source": "none"}, False),
        ({"datetime": "2020-12-02"}, False),
    ],
)
def test_a_time_and_a_place_in_the_dark(
    client: TestClient, params: dict[str, str], night: bool, fit: str
) -> None:
    alberta = geotiff(crs="EPSG:32611", origin=(667_755.0, 5_780_445.0))
    found = warnings(client, alberta, fit=fit, **params)
    assert list(found) == (["sun-below-horizon"] if night else [])
    assert not night or "at 52.14, -114.54" in found["sun-below-horizon"]


@pytest.mark.parametrize(
    ("height", "width", "pixel_size", "words"),
    [
        (40, 40, 30, None),
        (80, 80, 15, None),  # 30 m, as the network sees them
        (48, 48, 30, None),
        (100, 100, 30, "pixels are 75"),
        (21, 21, 30, "pixels are 15.7"),
        (40, 48, 30, None),
        (20, 80, 30, "pixels are 60.01 x 15 m (30.01 m before fit=resize)"),  # of the right area
        (56, 29, 30, "pixels are 21.76 x 42.01 m"),
    ],
)
def test_resized_pixels_are_those_that_the_network_sees(
    client: TestClient, height: int, width: int, pixel_size: float, words: str | None
) -> None:
    data = geotiff(dn_pixels(height, width), pixel_size=pixel_size)
    found = warnings(client, data, fit="resize")
    assert list(found) == ([] if words is None else ["unusual-pixel-size"])
    assert words is None or words in found["unusual-pixel-size"]


@pytest.mark.parametrize(("height", "width", "warned"), [(90, 60, False), (60, 100, True), (100, 60, True)])
def test_squeezed_pixels_of_unknown_size(client: TestClient, height: int, width: int, warned: bool) -> None:
    found = warnings(client, geotiff(dn_pixels(height, width), crs=None), fit="resize")
    assert list(found) == ["unusual-pixel-size"] * warned
    assert not warned or f"a square of {width} x {height} px" in found["unusual-pixel-size"]
