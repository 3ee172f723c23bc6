"""What is wrong with parts of a form that should be one Landsat delivery, and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from httpx import Response
from starlette.testclient import TestClient

from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.deliveries import CLEAR, PRODUCT

FRESH = {"Cache-Control": "no-cache"}
CLEAR_FLAGS = np.full((41, 41), CLEAR, np.uint16)


def send(client: TestClient, files: dict[str, tuple[str, bytes]], **data: str) -> Response:
    return client.post("/embed", files=files, data=data, headers=FRESH)


def _without(name: str) -> dict[str, tuple[str, bytes]]:
    return {part: file for part, file in deliveries.parts().items() if part != name}


def _swapped(one: str, other: str) -> dict[str, tuple[str, bytes]]:
    files = deliveries.parts()
    return files | {one: files[other], other: files[one]}


def _replaced(name: str, content: bytes) -> dict[str, tuple[str, bytes]]:
    files = deliveries.parts(flags=CLEAR_FLAGS)
    return files | {name: (files[name][0], content)}


def _named(part: str, name: str) -> dict[str, tuple[str, bytes]]:
    files = deliveries.parts(flags=CLEAR_FLAGS)
    return files | {part: (name, files[part][1])}


TM = deliveries.mtl(SENSOR_ID="TM", SPACECRAFT_ID="LANDSAT_5")
WRONG: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "missing band": (_without("SR_B3"), "wrong-band-count", ["SR_B3"]),
    "TM has no SR_B6": (_without("SR_B6"), "missing-coastal", ["TM", "blue"]),
    "TM by its MTL": (deliveries.parts(metadata=TM), "missing-coastal", ["LANDSAT_5", "blue"]),
    "ETM+ by name": (
        deliveries.parts(product=PRODUCT.replace("LC08", "LE07")),
        "missing-coastal",
        ["LE07", "OLI"],
    ),
    "TIRS only": (deliveries.parts(metadata=deliveries.mtl(SENSOR_ID="TIRS")), "bad-parameter", ["TIRS"]),
    "Level 1 by its MTL": (
        deliveries.parts(metadata=deliveries.mtl(PROCESSING_LEVEL="L1TP")),
        "bad-parameter",
        ["L1TP", "Level-2"],
    ),
    "Level 1 by name": (
        {
            part: (f"LC08_L1TP_192027_20200802_20200914_02_T1_{part[3:]}.TIF", file)
            for part, (_, file) in deliveries.parts().items()
        },
        "bad-parameter",
        ["LC08_L1TP", "Level-2"],
    ),
    "another band": (_swapped("SR_B2", "SR_B4"), "bad-parameter", ["SR_B2", "_SR_B4.TIF"]),
    "another product": (
        deliveries.parts() | {"SR_B1": deliveries.parts(product=PRODUCT.replace("2020", "2021"))["SR_B1"]},
        "bad-parameter",
        ["SR_B1", "20200802", "20210802"],
    ),
    "MTL of another product": (
        deliveries.parts(metadata=deliveries.mtl(LANDSAT_PRODUCT_ID=PRODUCT.replace("LC08", "LC09"))),
        "bad-parameter",
        ["MTL is of LC09", "LC08_L2SP_192027"],
    ),
    **{
        f"{part} is {name}": (_named(part, name), "bad-parameter", [part, name])
        for part, name in (
            ("SR_B7", f"{PRODUCT}_ST_B10.TIF"),
            ("SR_B7", f"{PRODUCT}_SR_QA_AEROSOL.TIF"),
            ("SR_B7", "LC08_X_B6.TIF"),
            ("SR_B7", "SR_B6.tif"),
            ("SR_B7", f"{PRODUCT}_SR_B6_clip.TIF"),
            ("QA_PIXEL", f"{PRODUCT}_QA_RADSAT.TIF"),
            ("QA_PIXEL", "LC08_L1TP_192027_20160802_20170222_01_T1_pixel_qa.tif"),  # its bits are others
            ("SR_B7", "LC08_L1TP_192027_20160802_20170222_01_T1_sr_band6.tif"),
        )
    },
    "a file of Level 1 among the others": (
        _named("SR_B7", "LC08_L1TP_192027_20200802_20200914_02_T1_B7.TIF"),
        "bad-parameter",
        ["SR_B7", "Level-1"],
    ),
    "another size": (
        _replaced("SR_B4", geotiff(dn_pixels(count=1, width=45))),
        "wrong-size",
        ["SR_B4", "45"],
    ),
    "another place": (
        _replaced("SR_B4", geotiff(dn_pixels(count=1), origin=(0.0, 0.0))),
        "wrong-size",
        ["SR_B4", "transform"],
    ),
    "seven bands in one": (_replaced("SR_B1", geotiff()), "wrong-band-count", ["SR_B1", "7 bands"]),
    "no TIFF": (_replaced("SR_B5", b"\x89PNG"), "not-a-tiff", ["SR_B5"]),
    "flags that are none": (
        _replaced("QA_PIXEL", geotiff(dn_pixels(count=1).astype(np.float32))),
        "unsupported-pixel-type",
        ["QA_PIXEL", "float32"],
    ),
    "MTL that is none": (deliveries.parts(metadata=b"hello"), "bad-parameter", ["MTL"]),
    "tile beside": (deliveries.parts() | {"tile": ("t.tif", geotiff())}, "bad-parameter", ["tile", "SR_B1"]),
    "MTL alone": ({"MTL": ("x_MTL.txt", deliveries.mtl())}, "wrong-band-count", ["SR_B1", "SR_B7"]),
}


@pytest.mark.parametrize(
    "name", ["{part}.tif", "B7.tif", "blob", "clip_SR_B7_40px.tif", "SR_B7_ST_LOUIS.tif"]
)
def test_names_that_say_nothing_else_are_taken(client: TestClient, name: str) -> None:
    assert send(client, _named("SR_B7", name.format(part="SR_B7"))).status_code == 200


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_delivery_is_said(client: TestClient, case: str) -> None:
    files, code, words = WRONG[case]
    response = send(client, files)
    assert response.json()["type"].endswith(code), response.text
    for word in words:
        assert word in response.json()["detail"]
