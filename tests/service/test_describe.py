"""What an answer warns of: values at the end of their range, half of a conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from starlette.testclient import TestClient

from tests.rasters import ORIGIN, Pixels, dn_pixels, geotiff
from tests.service.embed_requests import send

REFLECTANCE = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)


def warnings(client: TestClient, data: bytes, **params: Any) -> dict[str, str]:
    response = send(client, data, **params)
    assert response.status_code == 200, response.text
    [item] = response.json()["data"]
    return {warning["code"]: warning["message"] for warning in item["warnings"]}


def bright(pixels: Pixels, value: float, rows: int) -> bytes:
    pixels = pixels.copy()
    pixels[4, :rows] = value  # of 40 in one band
    return geotiff(pixels)


@pytest.mark.parametrize("params", [{"format": "npy"}, {}, {"fit": "grid", "format": "npy"}])
def test_a_header_counts_warnings_also_where_the_format_has_no_room(
    client: TestClient, params: dict[str, str]
) -> None:
    for _ in range(3):  # also from the cache, and once more as a whole
        answer = send(client, geotiff(), scale="0.0000275", **params)
        assert answer.headers["X-Warnings"] == "assumed-offset=1"
        assert "X-Warnings" not in send(client, geotiff(), **params).headers


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
    ("side", "pixel_size", "words"),
    [
        (40, 30, None),
        (80, 15, None),  # 30 m, as the network sees them
        (48, 30, None),
        (100, 30, "pixels are 75"),
        (21, 30, "pixels are 15.7"),
    ],
)
def test_resized_pixels_are_those_that_the_network_sees(
    client: TestClient, side: int, pixel_size: float, words: str | None
) -> None:
    data = geotiff(dn_pixels(side, side), pixel_size=pixel_size)
    found = warnings(client, data, fit="resize")
    assert list(found) == ([] if words is None else ["unusual-pixel-size"])
    assert words is None or words in found["unusual-pixel-size"]


SENTINEL_2 = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("names", "bands", "words"),
    [
        ([f"SR_B{n}" for n in range(1, 8)], "1,2,3,4,5,6,7", None),
        (
            [f"SR_B{n}" for n in range(1, 8)],
            "4,3,2,1,5,6,7",
            "SR_B4 as SR_B1, SR_B3 as SR_B2, SR_B2 as SR_B3",
        ),
        (["QA_PIXEL", *(f"SR_B{n}" for n in range(1, 8))], "1,3,4,5,6,7,8", "QA_PIXEL as SR_B1"),
        (["red", "nir", "", "", "", "", "", ""], "3,4,5,1,2,6,7", None),
        (SENTINEL_2, "1,2,3,4,9,11,12", None),
        (SENTINEL_2, "1,2,3,4,8,11,12", None),
        (SENTINEL_2, "2,3,4,5,6,7,8", "B2 as SR_B1"),
    ],
)
def test_bands_that_are_others_by_their_names(
    client: TestClient, names: list[str], bands: str, words: str | None, fit: str
) -> None:
    data = geotiff(dn_pixels(count=len(names)), descriptions=names)
    found = warnings(client, data, bands=bands, fit=fit)
    found.pop("cloudy", None)
    assert list(found) == ([] if words is None else ["contradicted-names"])
    assert words is None or words in found["contradicted-names"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("pixels", "value"), [(dn_pixels(), 65535), (dn_pixels().astype(np.int32), 70_000), (REFLECTANCE, 1.7)]
)
def test_many_pixels_at_the_largest_dn(client: TestClient, pixels: Pixels, value: float, fit: str) -> None:
    units = {"units": "dn"} if pixels.dtype == np.int32 else {}
    found = warnings(client, bright(pixels, value, 4), fit=fit, **units)
    assert list(found) == ["saturated"]
    assert "10.0%" in found["saturated"]
    assert "nodata=" in found["saturated"]
    assert warnings(client, bright(pixels, value, 1), fit=fit, **units) == {}
    named = warnings(client, bright(pixels, value, 4), fit=fit, nodata=str(value), **units)
    assert "saturated" not in named


def test_pixels_that_are_missing_are_not_saturated(client: TestClient) -> None:
    pixels = dn_pixels()
    pixels[4, :10] = 65535
    pixels[5, :10] = 0
    assert "saturated" not in warnings(client, geotiff(pixels))


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_reflectance_that_was_clipped(client: TestClient, fit: str) -> None:
    dark = REFLECTANCE.copy()
    dark[5:, :8] = -0.01  # water, in the bands where it is darkest
    assert warnings(client, geotiff(dark), fit=fit) == {}
    found = warnings(client, geotiff(dark.clip(0, 1)), fit=fit)
    assert list(found) == ["partly-zero"]
    assert "19.5%" in found["partly-zero"]
    dark[:, :8] = 0  # nothing there
    assert warnings(client, geotiff(dark), fit=fit) == {}
    refused = send(client, geotiff((REFLECTANCE - 0.2).clip(0, 1)), fit=fit)
    assert refused.status_code == 422
    assert "clipped reflectance" in refused.json()["detail"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("data", "params", "code"),
    [
        (geotiff(), {"scale": "0.0000275"}, "assumed-offset"),
        (geotiff(), {"scale": "0.0000275", "offset": "0"}, None),
        (geotiff(), {"scale": "0.0000275", "offset": "-0.2"}, None),
        (geotiff(), {"scale": "0.0000275", "offset": "0.2"}, "unlikely-units"),
        (geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7), {}, "assumed-offset"),
        (geotiff(scales=[2.75e-5] * 7, offsets=[-0.2] * 7), {}, None),
        (geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7), {"units": "dn"}, None),
        (geotiff((REFLECTANCE * 10_000).astype(np.int16)), {"scale": "0.0001"}, None),
        (geotiff(REFLECTANCE + np.float32(0.2)), {"offset": "-0.2"}, "assumed-scale"),
        (geotiff(REFLECTANCE + np.float32(0.2)), {"offset": "-0.2", "scale": "1"}, None),
    ],
    ids=[
        "landsat's",
        "none",
        "both",
        "other sign",
        "tags",
        "both tags",
        "said",
        "another",
        "offset",
        "said as well",
    ],
)
def test_a_scale_or_an_offset_alone(
    client: TestClient, data: bytes, params: dict[str, str], code: str | None, fit: str
) -> None:
    assert list(warnings(client, data, fit=fit, **params)) == ([] if code is None else [code])
