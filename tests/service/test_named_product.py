"""What an answer warns of: files that are by their names of another product, or of another day."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.rasters import Pixels, dn_pixels, geotiff
from tests.service import deliveries

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


@pytest.mark.parametrize("fit", ["crop", "grid"])
@pytest.mark.parametrize(
    ("name", "when", "words"),
    [
        (f"LC08_L2SP_{ID}.tif", "2020-08-02T09:58:12Z", None),
        (f"LC08_L2SP_{ID}.tif", "2020-08-03", None),  # of another zone, perhaps
        (f"LC08_L2SP_{ID}.tif", "2019-08-02", "the request says 2019-08-02, the file's name 2020-08-02;"),
        (f"LC08_L2SP_{ID}.tif", "", None),
        ("LC08_L2SP_192027_20201399_20200914_02_T1.tif", "2019-08-02", None),  # no day
        ("192027_20200802.tif", "2019-08-02", None),
    ],
)
def test_the_day_in_a_name(client: TestClient, name: str, when: str, words: str | None, fit: str) -> None:
    answer = client.post("/embed", files={"tile": (name, geotiff())}, data={"fit": fit, "datetime": when})
    [item] = answer.json()["data"]
    assert [warning["code"] for warning in item["warnings"]] == ([] if words is None else ["other-datetime"])
    assert words is None or words in item["warnings"][0]["message"]
    assert item["datetime"] == (when or None)


@pytest.mark.parametrize("mtl", [True, False])
def test_the_day_in_the_names_of_a_delivery(client: TestClient, mtl: bool) -> None:
    parts = deliveries.parts(metadata=deliveries.mtl() if mtl else None)
    [item] = client.post("/embed", files=parts, data={"datetime": "2019-08-02"}).json()["data"]
    [warning] = [warning for warning in item["warnings"] if warning["code"] == "other-datetime"]
    assert ("the file's name 2020-08-02" in warning["message"]) is not mtl
