"""A last band that calls itself alpha, as gdalwarp -dstalpha adds it: a mask, and none of the seven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from starlette.testclient import TestClient

from service.rasters.geotiff import Limits, Reader
from tests.rasters import Pixels, dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.embed_requests import send

HIDDEN = (slice(5, 15), slice(20, 41))
SEEN = np.ones((41, 41), bool)
SEEN[HIDDEN] = False
NAMES = [f"SR_B{band}" for band in range(1, 8)]
ENCODINGS: list[dict[str, Any]] = [
    {},
    {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"interleave": "band", "compress": "lzw"},
    {"compress": "packbits"},
]


def with_alpha(pixels: Pixels | None = None, *, opaque: float = 65535, **creation: Any) -> bytes:
    pixels = dn_pixels() if pixels is None else pixels
    alpha = (SEEN * opaque).astype(pixels.dtype)
    return geotiff(np.concatenate([pixels, alpha[None]]), alpha=True, **creation)


def zeroed() -> bytes:
    """The same tile, hidden by the value that means nothing."""
    return geotiff(dn_pixels() * SEEN)


def embed(client: TestClient, data: bytes, **params: Any) -> dict[str, Any]:
    response = send(client, data, **params)
    assert response.status_code == 200, response.text
    [item] = response.json()["data"]
    return dict(item)


@pytest.mark.parametrize("creation", ENCODINGS, ids=str)
@pytest.mark.parametrize("fit", ["crop", "resize", "grid"])
def test_what_it_hides_is_missing(client: TestClient, creation: dict[str, Any], fit: str) -> None:
    item, expected = embed(client, with_alpha(**creation), fit=fit), embed(client, zeroed(), fit=fit)
    assert item["valid_fraction"] == expected["valid_fraction"] < 0.9
    assert item["embedding"] == expected["embedding"]
    assert item["warnings"] == expected["warnings"] == []


def test_what_it_hides_in_part_is_seen(client: TestClient) -> None:
    assert embed(client, with_alpha(opaque=1))["embedding"] == embed(client, zeroed())["embedding"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_floats_have_one_of_floats(client: TestClient, fit: str) -> None:
    reflectance = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)
    item = embed(client, with_alpha(reflectance, opaque=1), fit=fit)
    assert item["units"] == "reflectance"
    assert item["valid_fraction"] == embed(client, zeroed(), fit=fit)["valid_fraction"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_units_are_told_from_what_is_seen(client: TestClient, fit: str) -> None:
    pixels = (dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)
    pixels[:, ~SEEN] = 1e6
    assert embed(client, with_alpha(pixels, opaque=1), fit=fit)["units"] == "reflectance"


@pytest.mark.parametrize("compress", ["deflate", "packbits"])
def test_a_warped_file(client: TestClient, tmp_path: Path, compress: str) -> None:
    path = tmp_path / "warped.tif"
    with (
        MemoryFile(geotiff(dn_pixels(60, 60))) as memory,
        memory.open() as source,
        WarpedVRT(source, crs="EPSG:3857", add_alpha=True) as warped,
    ):
        rasterio.shutil.copy(warped, path, driver="GTiff", compress=compress)
        seen = warped.read(8) != 0
    assert not seen.all()
    item = embed(client, path.read_bytes(), fit="resize")
    assert item["valid_fraction"] == pytest.approx(seen.mean(), abs=0.05)
    assert item["units"] == "dn"


@pytest.mark.parametrize("fit", ["crop", "resize", "grid"])
def test_zeros_that_it_hides_are_not_taken_for_clipped_reflectance(client: TestClient, fit: str) -> None:
    pixels = dn_pixels()
    pixels[2, ~SEEN] = 0
    assert embed(client, with_alpha(pixels), fit=fit)["warnings"] == []
    assert embed(client, geotiff(pixels), fit=fit)["warnings"][0]["code"] == "partly-zero"


def test_all_of_it_hidden_is_empty(client: TestClient) -> None:
    response = send(client, with_alpha(opaque=0))
    assert response.status_code == 422
    assert response.json()["type"].endswith("empty-tile")
    assert "an alpha band" in response.json()["detail"]


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_flags_are_hidden_as_the_bands_are(client: TestClient, fit: str) -> None:
    flags = np.full((1, 41, 41), deliveries.CLOUD, np.uint16)
    data = with_alpha(np.concatenate([flags, dn_pixels()]), descriptions=["QA_PIXEL", *NAMES, None])
    item = embed(client, data, fit=fit)
    assert item["cloud_fraction"] == 1
    assert item["quality"]["cloud"] == item["valid_fraction"] < 1
    assert item["quality"]["fill"] == pytest.approx(1 - item["valid_fraction"])


def test_one_in_a_file_of_a_delivery(client: TestClient) -> None:
    response = client.post(
        "/embed", files=deliveries.parts() | {"SR_B4": ("red.tif", with_alpha(dn_pixels()[3:4], nodata=0))}
    )
    assert response.status_code == 200, response.text
    assert response.json()["data"][0]["embedding"] == embed(client, zeroed())["embedding"]


@pytest.mark.parametrize("creation", ENCODINGS, ids=str)
def test_it_is_not_taken_for_swir(client: TestClient, creation: dict[str, Any]) -> None:
    """Six bands and alpha; or seven bands of which the last has a wrong label, and the request says so."""
    data = with_alpha(dn_pixels(count=6), **creation)
    refused = send(client, data).json()
    assert refused["type"].endswith("ambiguous-bands")
    assert "ALPHA" in refused["detail"]
    assert embed(client, data, bands="1,2,3,4,5,6,7")["valid_fraction"] < 1


@pytest.mark.parametrize("params", [{"bands": "1,2,3,4,5,6,8"}, {}], ids=["asked for", "named"])
@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_band_of_the_seven_with_a_wrong_label_hides_nothing(
    client: TestClient, params: dict[str, str], fit: str
) -> None:
    pixels = dn_pixels(count=8)
    names = None if params else [*NAMES[:6], "other", "SR_B7"]
    item = embed(client, geotiff(pixels, alpha=True, descriptions=names), fit=fit, **params)
    expected = embed(client, geotiff(pixels[[0, 1, 2, 3, 4, 5, 7]]), fit=fit)
    assert item["embedding"] == expected["embedding"]


def test_it_counts_among_the_bands_that_are_allowed(make_client: MakeClient) -> None:
    response = send(make_client(max_bands=7), with_alpha())
    assert response.status_code == 413
    assert "8 bands" in response.json()["detail"]


@pytest.mark.parametrize("creation", ENCODINGS, ids=str)
def test_one_that_is_named_afterwards(tmp_path: Path, creation: dict[str, Any]) -> None:
    path = tmp_path / "named.tif"
    path.write_bytes(geotiff(dn_pixels(count=8), **creation))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (*[ColorInterp.undefined] * 7, ColorInterp.alpha)
    for whole in (True, False):
        with Reader(path.read_bytes(), Limits(), whole=whole) as reader:
            assert reader.header.alpha
