"""Real deliveries through the whole service with the bundle of the package."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from httpx import Response
from pyproj import Geod
from rasterio.warp import transform
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.shared
FRESH = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(engine_threads=1, log_level="warning"))) as client:
        yield client


def send(client: TestClient, path: Path, **params: str) -> Response:
    return client.post("/embed", content=path.read_bytes(), params=params, headers=FRESH)


def detail(response: Response) -> str:
    assert response.status_code == 422, response.text
    return str(response.json()["detail"])


def test_every_bigearthnet_tile_is_embedded_twice_alike_at_its_place(
    client: TestClient, shared: Path
) -> None:
    files = sorted((shared / "data/ben_landsat/images").glob("*.tif"))
    assert len(files) == 148
    for path in files:
        first, second = (send(client, path, datetime="2017-06-13T10:10:31Z") for _ in range(2))
        assert first.status_code == 200, (path.name, first.text)
        assert first.content == second.content, path.name
        item = first.json()["data"][0]
        values = np.array(item["embedding"], np.float32)
        assert values.shape == (144,)
        assert np.isfinite(values).all()
        lon, lat = _center(path)
        assert Geod(ellps="WGS84").inv(lon, lat, item["lon"], item["lat"])[2] < 1, path.name
        assert item["metadata_source"] == {"datetime": "request", "hour": "request", "location": "file"}


def test_one_file_of_a_usgs_delivery_says_which_bands_are_missing(client: TestClient, shared: Path) -> None:
    for path in sorted((shared / "data/products").glob("LC08_L2SP*/*SR_B*.TIF")):
        response = send(client, path)
        assert response.json()["type"].endswith("wrong-band-count")
        assert "SR_B1" in detail(response)
        assert "SR_B7" in detail(response)


def test_hls_is_told_its_units_and_embedded_with_them(client: TestClient, shared: Path) -> None:
    [path] = (shared / "data/products/hls_l30").glob("*.tif")
    assert "bands=1,2,3,4,5,6,7" in detail(send(client, path))
    assert "fit=" in detail(send(client, path, bands="1,2,3,4,5,6,7", units="reflectance_1e4"))
    units = detail(send(client, path, bands="1,2,3,4,5,6,7", fit="crop"))
    assert "units=reflectance_1e4" in units
    right = send(client, path, bands="1,2,3,4,5,6,7", fit="crop", units="reflectance_1e4")
    assert right.status_code == 200, right.text
    assert right.json()["data"][0]["units"] == "reflectance_1e4"


def test_thirteen_bands_are_told_how_to_name_seven(client: TestClient, shared: Path) -> None:
    for path in sorted((shared / "data/products/sentinel2_l1c_13band").glob("*.tif")):
        assert "bands=" in detail(send(client, path))
        right = send(client, path, bands="1,2,3,4,13,11,12", units="reflectance_1e4", fit="resize")
        assert right.status_code == 200, right.text
        assert {w["code"] for w in right.json()["data"][0]["warnings"]} >= {"unusual-pixel-size"}


def test_scenes_need_a_fit_and_know_their_place(client: TestClient, shared: Path) -> None:
    scenes = shared / "data/scenes"
    alberta = scenes / "alberta_LC08_043024_20200802.tif"
    for word in ("fit=crop", "fit=resize", "fit=grid"):
        assert word in detail(send(client, alberta))
    crop = send(client, alberta, fit="crop", datetime="2020-08-02T18:31:00Z").json()["data"][0]
    assert (crop["lon"], crop["lat"]) == pytest.approx(_center(alberta), abs=1e-5)
    nowhere = send(client, scenes / "momotombo_LC08_017051_20151205_no_crs.tif", fit="crop")
    assert nowhere.json()["data"][0]["metadata_source"]["location"] == "missing"
    assert "SR_B1" in detail(send(client, scenes / "alberta_landcover.tif", fit="crop"))


def test_formats_give_the_same_embedding_of_a_real_tile(client: TestClient, shared: Path) -> None:
    path = next((shared / "data/ben_landsat/images").glob("*.tif"))
    listed = np.array(send(client, path).json()["data"][0]["embedding"], np.float32)
    npy = np.load(io.BytesIO(send(client, path, format="npy").content))
    assert npy.tobytes() == listed.tobytes()


def _center(path: Path) -> tuple[float, float]:
    with rasterio.open(path) as file:
        left, bottom, right, top = file.bounds
        lons, lats = transform(file.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    return lons[0], lats[0]
