"""The parameter `nodata`: what it says holds instead of what a file declares, in tiles and scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.client import Tile
from service.clients.errors import UnusableTileError
from tests.rasters import Pixels, dn_pixels, geotiff
from tests.service import deliveries
from tests.service.embed_requests import send

REFLECTANCE = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)


def holed(pixels: Pixels, value: float) -> Pixels:
    """The same pixels with a value where there is nothing, in one band."""
    pixels = pixels.copy()
    pixels[2, 5:15, 10:25] = value
    return pixels


def embed(client: TestClient, data: bytes, **params: Any) -> dict[str, Any]:
    response = send(client, data, {"Content-Type": "image/tiff"}, **params)
    assert response.status_code == 200, response.text
    [item] = response.json()["data"]
    return dict(item)


@pytest.mark.parametrize(
    ("pixels", "value", "params"),
    [
        (dn_pixels(), 65535, {}),
        (dn_pixels(), 12_345, {"units": "dn"}),
        (dn_pixels().astype(np.int32), -1, {"units": "dn"}),
        (REFLECTANCE, 0.123, {}),  # not a number of 32 bits: compared as it is stored
        (np.rint(REFLECTANCE * 10_000).astype(np.int16), 32767, {"scale": "0.0001", "offset": "0"}),
    ],
    ids=["largest", "within", "below", "float", "scaled"],
)
@pytest.mark.parametrize("fit", ["crop", "resize", "grid"])
@pytest.mark.parametrize("creation", [{}, {"compress": "packbits"}], ids=["plain", "gdal"])
def test_a_value_that_is_said_is_as_one_that_is_declared(
    client: TestClient,
    pixels: Pixels,
    value: float,
    params: dict[str, str],
    fit: str,
    creation: dict[str, Any],
) -> None:
    file = holed(pixels, value)
    said = embed(client, geotiff(file, **creation), nodata=str(value), fit=fit, **params)
    declared = embed(client, geotiff(file, nodata=value, **creation), fit=fit, **params)
    assert said["embedding"] == declared["embedding"]
    assert said["valid_fraction"] == declared["valid_fraction"] < 1
    assert said["warnings"] == declared["warnings"]


@pytest.mark.parametrize("none", ["none", " none ", "nan", "-inf"])
@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_what_a_file_declares_can_be_disregarded(client: TestClient, none: str, fit: str) -> None:
    data = geotiff(nodata=float(dn_pixels()[0, 20, 20]))
    assert embed(client, data, fit=fit)["valid_fraction"] < 1
    item = embed(client, data, nodata=none, fit=fit)
    assert item["valid_fraction"] == 1
    assert item["embedding"] == embed(client, geotiff(), fit=fit)["embedding"]


def test_zeros_stay_missing(client: TestClient) -> None:
    data = geotiff(holed(dn_pixels(), 0), nodata=0)
    item = embed(client, data, nodata="none")
    assert item["valid_fraction"] == embed(client, data)["valid_fraction"] < 1


def test_each_file_has_its_own(client: TestClient) -> None:
    files = [("tile", geotiff(holed(dn_pixels(), value))) for value in (65535, 1, 65535)]
    said = '[{"nodata": 65535}, {"nodata": "1"}, {}]'
    response = client.post("/embed", files=files, data={"metadata": said})
    first, second, third = response.json()["data"]
    assert first["valid_fraction"] == second["valid_fraction"] < third["valid_fraction"] == 1
    again = client.post("/embed", files=files, data={"nodata": ["65535", "1", ""]})
    assert [item["valid_fraction"] for item in again.json()["data"]] == [
        item["valid_fraction"] for item in (first, second, third)
    ]


@pytest.mark.parametrize("declared", [[0] * 7, [0, 7, 0, 0, 0, 0, 0]], ids=["alike", "each its own"])
def test_a_delivery_s_bands_all_have_it(client: TestClient, declared: list[int]) -> None:
    pixels = holed(dn_pixels(), 65535)
    files = {
        f"SR_B{band}": ("", geotiff(pixels[band - 1 : band], nodata=declared[band - 1]))
        for band in range(1, 8)
    }
    files = {name: (f"{name}.tif", data) for name, (_, data) in files.items()}
    response = client.post("/embed", files=files, data={"nodata": "65535"})
    assert response.status_code == 200, response.text
    [item] = response.json()["data"]
    assert item["embedding"] == embed(client, geotiff(pixels, nodata=65535))["embedding"]


def test_flags_have_no_such_value(client: TestClient) -> None:
    flags = np.full((41, 41), deliveries.CLOUD)
    response = client.post(
        "/embed", files=deliveries.parts(flags=flags), data={"nodata": str(deliveries.CLOUD)}
    )
    assert response.json()["data"][0]["cloud_fraction"] == 1


@pytest.mark.parametrize("nodata", ["-9999", "0.5", "65536", "nan", "-inf"])
@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_value_that_cannot_be_is_told(client: TestClient, nodata: str, fit: str) -> None:
    [warning] = embed(client, geotiff(), nodata=nodata, fit=fit)["warnings"]
    assert warning["code"] == "unused-parameter"
    assert f"nodata is {nodata}, " in warning["message"]
    assert "uint16" in warning["message"]


@pytest.mark.parametrize("nodata", ["nan", "inf", "-9999", "none"])
def test_a_value_that_can_be_is_not(client: TestClient, nodata: str) -> None:
    assert embed(client, geotiff(REFLECTANCE), nodata=nodata, units="reflectance")["warnings"] == []


@pytest.mark.parametrize("nodata", ["nothing", "1,2", "0x10"])
def test_what_is_no_number_is_refused(client: TestClient, nodata: str) -> None:
    response = send(client, geotiff(), nodata=nodata)
    assert response.status_code == 422
    assert response.json()["detail"] == f"nodata is {nodata!r}: expected a number, or 'none'"


def test_the_answer_to_a_file_that_came_before_is_not_taken_for_another_s(client: TestClient) -> None:
    data = geotiff(holed(dn_pixels(), 65535), nodata=float(dn_pixels()[0, 20, 20]))
    params: list[dict[str, str]] = [{}, {"nodata": "none"}, {"nodata": "65535"}, {"nodata": "nan"}]
    fresh = [
        send(client, data, {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}, **said).json()[
            "data"
        ][0]
        for said in params
    ]
    assert len({item["valid_fraction"] for item in fresh}) == 3
    for _ in range(3):
        for said, item in zip(params, fresh, strict=True):
            assert embed(client, data, **said) | {"cached": None} == item | {"cached": None}


def test_an_array_that_cannot_have_it_is_refused() -> None:
    with pytest.raises(UnusableTileError, match="nodata is 'x'"), Tile(data=dn_pixels(), nodata="x").opened():
        pass
