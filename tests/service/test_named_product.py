"""What an answer warns of: files that are of another product by their names."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.rasters import Pixels, dn_pixels, geotiff

ID = "192027_20200802_20200914_02_T1"
NUMBERED = [f"B{n}" for n in range(1, 8)]
REFLECTANCE = (dn_pixels() * 2.75e-5 - 0.2).astype("float32")


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("name", "bands", "pixels", "params", "codes"),
    [
        (f"LC08_L2SP_{ID}.tif", None, dn_pixels(), {}, []),
        (f"LC08_L1TP_{ID}_stack.tif", None, dn_pixels(), {}, ["contradicted-names"]),
        (f"lc09_l1gt_{ID}.TIF", NUMBERED, dn_pixels(), {"units": "dn"}, ["contradicted-names"]),
        (f"LC08_L1TP_{ID}_reflectance.tif", None, REFLECTANCE, {}, []),  # somebody corrected it
        (f"LE07_L2SP_{ID}.tif", None, dn_pixels(), {}, ["contradicted-names"]),
        (f"LT05_L2SP_{ID}.tif", None, REFLECTANCE, {}, ["contradicted-names"]),
        ("LA1_2020.tif", None, dn_pixels(), {}, []),
        ("tile.tif", NUMBERED, dn_pixels(), {}, ["assumed-dn"]),
        ("tile.tif", NUMBERED, dn_pixels(), {"units": "dn"}, []),
        ("tile.tif", NUMBERED, REFLECTANCE, {}, []),
        ("tile.tif", [f"SR_{band}" for band in NUMBERED], dn_pixels(), {}, []),
    ],
)
def test_names_of_other_products(
    client: TestClient,
    name: str,
    bands: list[str] | None,
    pixels: Pixels,
    params: dict[str, str],
    codes: list[str],
    fit: str,
) -> None:
    data = geotiff(pixels, descriptions=bands)
    response = client.post("/embed", files={"tile": (name, data)}, data={"fit": fit} | params)
    [item] = response.json()["data"]
    assert [warning["code"] for warning in item["warnings"]] == codes
