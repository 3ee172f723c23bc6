"""QA_PIXEL as a band beside the others, as exports have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from httpx import Response
from starlette.testclient import TestClient

from model.bands import BANDS
from service.rasters import quality
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.deliveries import CIRRUS, CLEAR, CLOUD, FILL

FRESH = {"Cache-Control": "no-cache"}
NAMES = [*BANDS, "QA_PIXEL"]


def flags(height: int = 41, width: int = 41) -> np.ndarray:
    found = np.full((height, width), CLEAR, np.uint16)
    found[: height // 4] = CLOUD
    found[-height // 4 :] = FILL
    return found


def send(client: TestClient, files: dict[str, tuple[str, bytes]], **data: str) -> Response:
    return client.post("/embed", files=files, data=data, headers=FRESH)


def exported(pixels: np.ndarray, qa: np.ndarray, dtype: str = "uint16", **creation: Any) -> bytes:
    return geotiff(np.concatenate([pixels, qa[None]]).astype(dtype), descriptions=NAMES, **creation)


@pytest.mark.parametrize("creation", [{}, {"compress": "zstd"}, {"interleave": "band"}])
@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_band_says_what_a_part_says(
    client: TestClient, dtype: str, fit: str, creation: dict[str, Any]
) -> None:
    """Read by us or by GDAL, as a tile or as a scene."""
    pixels, qa = dn_pixels(80, 120), flags(80, 120)
    units = {} if dtype == "uint16" else {"units": "dn"}
    file = exported(pixels, qa, dtype, **creation)
    came = send(client, {"tile": ("a.tif", file)}, fit=fit, **units).json()["data"]
    expected = send(client, deliveries.parts(pixels, flags=qa), fit=fit).json()["data"]
    assert len(came) == {"crop": 1, "grid": 6}[fit]
    for item, other in zip(came, expected, strict=True):
        for name in ("embedding", "cloud_fraction", "quality"):
            assert item[name] == other[name]


def test_a_small_file_too(client: TestClient) -> None:
    item = send(client, {"tile": ("a.tif", exported(dn_pixels(), flags()))}).json()["data"][0]
    assert item["cloud_fraction"] == pytest.approx(1 / 3, abs=0.02)
    assert "cloudy" in {warning["code"] for warning in item["warnings"]}
    assert item["quality"]["fill"] == pytest.approx(1 / 4, abs=0.02)


@pytest.mark.parametrize("creation", [{}, {"compress": "zstd"}, {"mask": True}])
@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_what_an_export_left_out_is_fill(client: TestClient, fit: str, creation: dict[str, Any]) -> None:
    """It writes 0, or a mask, which no pixel of Landsat has: half a tile that is cloudy is cloudy."""
    pixels, qa = dn_pixels(40, 40), np.full((40, 40), CLOUD, np.uint16)
    if "mask" in creation:
        seen = np.full((40, 40), 255, np.uint8)
        seen[:20], qa[:20] = 0, CLEAR
        creation = {"mask": seen}
    else:
        pixels[:, :20], qa[:20] = 0, 0
    item = send(client, {"tile": ("a.tif", exported(pixels, qa, **creation))}, fit=fit).json()["data"][0]
    assert item["valid_fraction"] == 0.5
    assert item["cloud_fraction"] == 1.0
    assert item["quality"]["fill"] == 0.5


def test_cloudy_windows_are_left_out(client: TestClient) -> None:
    qa = np.full((80, 120), CLEAR, np.uint16)
    qa[:40, :80] = CLOUD
    files = {"tile": ("a.tif", exported(dn_pixels(80, 120), qa))}
    answer = send(client, files, fit="grid", max_cloud_fraction="0.3").json()
    assert answer["summary"]["skipped_cloudy"] == 2
    assert [(item["row"], item["col"]) for item in answer["data"]] == [(0, 2), (1, 0), (1, 1), (1, 2)]
    tile = send(client, {"tile": ("a.tif", exported(dn_pixels(), flags()))}, max_cloud_fraction="0.1")
    assert tile.json()["type"].endswith("too-cloudy")


def test_two_bands_of_one_name_say_nothing() -> None:
    assert quality.band([*BANDS, "qa_pixel"]) == 8
    assert quality.band([None, "QA_PIXEL", "QA_PIXEL"]) is None
    assert quality.band(["QA_PIXEL_median"]) is None


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_what_are_no_flags_is_fill(dtype: type[np.generic]) -> None:
    assert quality.flags_of(np.array([CLEAR, CLOUD, -1], dtype)).tolist() == [CLEAR, CLOUD, FILL]
    if dtype is not np.int16:
        assert quality.flags_of(np.array([65_535, 65_536], dtype)).tolist() == [65_535, FILL]


def test_floats_that_are_no_integers_are_fill() -> None:
    given = np.array([np.nan, 0.5, np.inf, 8.0], np.float32)
    assert quality.flags_of(given).tolist() == [FILL, FILL, FILL, 8]


def test_quality_of_pixels() -> None:
    pixels = np.array([FILL, CLOUD, CIRRUS, CLEAR, CLEAR], np.uint16)
    assert quality.cloud_fraction(pixels) == pytest.approx(0.5)
    assert quality.cloud_fraction(np.full(4, FILL, np.uint16)) == 0
    shares = quality.shares(pixels)
    assert (shares["fill"], shares["cloud"], shares["snow"]) == (0.2, 0.2, 0)
