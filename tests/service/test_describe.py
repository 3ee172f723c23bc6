"""What an answer warns of: values at the end of their range, half of a conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.rasters import Pixels, dn_pixels, geotiff
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


@pytest.mark.parametrize(
    "params", [{"format": "npy"}, {"format": "ndjson"}, {"fit": "grid", "format": "npy"}]
)
def test_a_header_names_the_model_also_where_the_format_has_no_room(
    client: TestClient, params: dict[str, str]
) -> None:
    said = client.get("/model").json()
    for _ in range(3):  # also from the cache, and once more as a whole
        answer = send(client, geotiff(), **params)
        assert answer.headers["X-Model"] == f"digest={said['digest']}, precision={said['precision']}"


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
