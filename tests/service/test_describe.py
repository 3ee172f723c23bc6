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
    assert warnings(client, geotiff(pixels)) == {}


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("data", "params", "code"),
    [
        (geotiff(), {"scale": "0.0000275"}, "assumed-offset"),
        (geotiff(), {"scale": "0.0000275", "offset": "0"}, None),
        (geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7), {}, "assumed-offset"),
        (geotiff(scales=[2.75e-5] * 7, offsets=[-0.2] * 7), {}, None),
        (geotiff(scales=[2.75e-5] * 7, offsets=[0] * 7), {"units": "dn"}, None),
        (geotiff((REFLECTANCE * 10_000).astype(np.int16)), {"scale": "0.0001"}, None),
        (geotiff(REFLECTANCE + np.float32(0.2)), {"offset": "-0.2"}, "assumed-scale"),
        (geotiff(REFLECTANCE + np.float32(0.2)), {"offset": "-0.2", "scale": "1"}, None),
    ],
    ids=["landsat's", "both", "tags", "both tags", "said", "another", "offset", "said as well"],
)
def test_a_scale_or_an_offset_alone(
    client: TestClient, data: bytes, params: dict[str, str], code: str | None, fit: str
) -> None:
    assert list(warnings(client, data, fit=fit, **params)) == ([] if code is None else [code])
