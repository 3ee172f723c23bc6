"""What a file says of pixels and place beside the pixels: masks, ground control points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile
from starlette.testclient import TestClient

from service.files import File
from service.rasters.geotiff import Limits
from service.rasters.open_raster import OpenRaster
from tests.rasters import Pixels, dn_pixels, geotiff
from tests.service import deliveries

HIDDEN = (slice(5, 15), slice(20, 41))


MASK = np.full((41, 41), 255, np.uint8)
MASK[HIDDEN] = 0


def zeroed(pixels: Pixels) -> Pixels:
    """The same pixels, hidden by the value that means nothing."""
    pixels = pixels.copy()
    pixels[:, *HIDDEN] = 0
    return pixels


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "creation",
    [{}, {"nodata": 0}, {"interleave": "band", "compress": "deflate"}, {"tiled": True, "blockxsize": 16}],
)
def test_hidden_pixels_are_nothing(creation: dict[str, Any], whole: bool) -> None:
    if creation.get("tiled"):
        creation = creation | {"blockysize": 16}
    file = File(geotiff(mask=MASK, **creation), None)
    with OpenRaster(file, Limits(), whole=whole) as raster:
        np.testing.assert_array_equal(raster.read(), zeroed(dn_pixels()))
        window = raster.read((10, 15, 20, 20), (3, 1))
    np.testing.assert_array_equal(window, zeroed(dn_pixels())[[2, 0], 10:30, 15:35])


def test_without_a_mask_nothing_is_hidden() -> None:
    with OpenRaster(File(geotiff(), None), Limits(), whole=False) as raster:
        np.testing.assert_array_equal(raster.read(), dn_pixels())


def test_a_band_among_others_that_calls_itself_alpha_hides_nothing() -> None:
    pixels = dn_pixels()
    pixels[6, 3, 4] = 1
    with OpenRaster(File(geotiff(pixels, ALPHA="YES"), None), Limits(), whole=False) as raster:
        np.testing.assert_array_equal(raster.read(), pixels)


def embed(client: TestClient, data: bytes, **parameters: str) -> list[dict[str, Any]]:
    response = client.post("/embed", params=parameters, content=data, headers={"Content-Type": "image/tiff"})
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["data"]
    return items


@pytest.mark.parametrize("parameters", [{}, {"fit": "resize"}, {"fit": "grid"}])
def test_a_masked_file_is_as_one_with_zeros(client: TestClient, parameters: dict[str, str]) -> None:
    [item] = embed(client, geotiff(mask=MASK), **parameters)
    [expected] = embed(client, geotiff(zeroed(dn_pixels())), **parameters)
    assert item["valid_fraction"] == expected["valid_fraction"] < 0.9
    assert item["embedding"] == expected["embedding"]
    [open_] = embed(client, geotiff(), **parameters)
    assert open_["valid_fraction"] == 1


def test_a_fully_masked_file_is_empty(client: TestClient) -> None:
    data = geotiff(mask=np.zeros_like(MASK))
    response = client.post("/embed", content=data, headers={"Content-Type": "image/tiff"})
    assert response.status_code == 422
    assert response.json()["type"].endswith("empty-tile")


def test_a_mask_in_one_file_of_a_delivery(client: TestClient) -> None:
    hidden = ("red.tif", geotiff(dn_pixels()[3:4], nodata=0, mask=MASK))
    response = client.post("/embed", files=deliveries.parts() | {"SR_B4": hidden})
    assert response.status_code == 200, response.text
    [expected] = embed(client, geotiff(zeroed(dn_pixels())))
    assert response.json()["data"][0]["valid_fraction"] == expected["valid_fraction"]


def by_points() -> bytes:
    corners = [(0, 0), (0, 41), (41, 0), (41, 41)]
    points = [GroundControlPoint(row, col, 13 + col / 4000, 47 - row / 4000) for row, col in corners]
    with MemoryFile() as memory:
        options = {"driver": "GTiff", "count": 7, "height": 41, "width": 41, "dtype": "uint16"}
        with memory.open(**options, gcps=points, crs="EPSG:4326") as dataset:
            dataset.write(dn_pixels())
        return bytes(memory.read())


def test_ground_control_points_are_no_place_and_it_says_so(client: TestClient) -> None:
    [item] = embed(client, by_points())
    assert (item["lat"], item["footprint"]) == (None, None)
    assert item["metadata_source"]["location"] == "missing"
    assert "unresolved-georeferencing" in [warning["code"] for warning in item["warnings"]]
    [given] = embed(client, by_points(), lat="47", lon="13")
    assert "unresolved-georeferencing" not in [warning["code"] for warning in given["warnings"]]


def test_a_file_that_has_no_place_at_all_has_no_such_warning(client: TestClient) -> None:
    [item] = embed(client, geotiff(crs=None))
    assert "unresolved-georeferencing" not in [warning["code"] for warning in item["warnings"]]
