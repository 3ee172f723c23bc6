"""Real imagery and golden checkpoints through a real server: what a person gets who uses landmoe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.warp import transform

from tests.rasters import dn_pixels, geotiff
from tests.service.server_process import LANDMOE, ServerProcess, run

pytestmark = [pytest.mark.shared, pytest.mark.server]

GOLDEN_TOLERANCE = 2e-5  # of the largest reference value
NO_CACHE = {"cache-control": "no-cache", "content-type": "image/tiff"}


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with ServerProcess() as process, httpx.Client(base_url=process.url, timeout=60) as client:
        yield client
        assert process.stop() == 0


def embed(client: httpx.Client, path: Path, **parameters: Any) -> httpx.Response:
    return client.post("/embed", content=path.read_bytes(), params=parameters, headers=NO_CACHE)


def center(path: Path) -> tuple[float, float]:
    """(lat, lon) of the middle of a file's bounds, by GDAL rather than by the service's own means."""
    with rasterio.open(path) as dataset:
        x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
        lons, lats = transform(dataset.crs, "EPSG:4326", [x], [y])
    return lats[0], lons[0]


def is_empty(path: Path) -> bool:
    """Whether nothing valid is left of a tile after the centre crop."""
    with rasterio.open(path) as dataset:
        pixels = dataset.read()
    top, left = (pixels.shape[1] - 40) // 2, (pixels.shape[2] - 40) // 2
    return not (pixels[:, top : top + 40, left : left + 40] > 0).all(0).any()


def test_every_bigearthnet_tile_is_answered_twice_alike(server: httpx.Client, shared: Path) -> None:
    files = sorted((shared / "data/ben_landsat/images").glob("*.tif"))
    assert len(files) == 148
    answered = 0
    for path in files:
        first, second = (embed(server, path, datetime="2018-05-26T10:00:31Z") for _ in range(2))
        assert first.content == second.content
        if is_empty(path):
            assert first.status_code == 422, first.text
            continue
        assert first.status_code == 200, first.text
        assert first.headers["x-cache"] == "bypass"
        item = first.json()["data"][0]
        embedding = np.array(item["embedding"])
        assert embedding.shape == (144,)
        assert np.isfinite(embedding).all()
        assert item["metadata_source"]["location"] == "file"
        lat, lon = center(path)
        _, _, distance_m = Geod(ellps="WGS84").inv(lon, lat, item["lon"], item["lat"])
        assert distance_m < 1, path.name
        answered += 1
    print(f"{answered} tiles embedded, {len(files) - answered} empty ones refused")
    assert answered >= 140


def test_an_all_zero_tile_is_refused_with_its_reason(server: httpx.Client) -> None:
    data = geotiff(np.zeros_like(dn_pixels()))
    answer = server.post("/embed", content=data, headers=NO_CACHE)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("empty-tile")
    assert "valid" in answer.json()["detail"]


def test_a_delivered_band_alone_names_the_missing_ones(server: httpx.Client, shared: Path) -> None:
    folder = shared / "data/products/LC08_L2SP_005009_20150710_as_delivered"
    for path in sorted(folder.glob("*_SR_B?.TIF")):
        answer = embed(server, path)
        assert answer.status_code == 422, answer.text
        own = path.stem[-5:]
        others = [f"SR_B{n}" for n in range(1, 8) if f"SR_B{n}" != own]
        assert all(band in answer.json()["detail"] for band in others), answer.json()["detail"]
    quality = embed(server, next(folder.glob("*_QA_PIXEL.TIF")))
    assert quality.status_code == 422
    assert embed(server, next(folder.glob("*_MTL.txt"))).status_code == 415


def test_hls_is_told_its_units_and_embeds_with_them(server: httpx.Client, shared: Path) -> None:
    path = shared / "data/products/hls_l30/hls_l30_10band_float32.tif"
    detail = embed(server, path, fit="resize").json()["detail"]
    assert "bands=" in detail
    bands = "1,2,3,4,5,6,7"
    refused = embed(server, path, fit="resize", bands=bands)
    assert refused.status_code == 422
    assert "reflectance_1e4" in refused.json()["detail"]
    answer = embed(server, path, fit="resize", bands=bands, units="reflectance_1e4")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["units"] == "reflectance_1e4"


def test_thirteen_bands_are_told_how_to_name_them(server: httpx.Client, shared: Path) -> None:
    for path in sorted((shared / "data/products/sentinel2_l1c_13band").glob("*.tif")):
        refused = embed(server, path, fit="resize")
        assert refused.status_code == 422
        detail = refused.json()["detail"]
        assert "bands=1,2,3,4,13,11,12" in detail, detail
        answer = embed(server, path, fit="resize", bands="1,2,3,4,13,11,12", units="reflectance_1e4")
        assert answer.status_code == 200, answer.text
        codes = {warning["code"] for warning in answer.json()["data"][0]["warnings"]}
        assert codes >= {"unusual-pixel-size"}, codes


def test_level_1_bands_are_refused_one_by_one(server: httpx.Client, shared: Path) -> None:
    for path in sorted((shared / "data/products/LC08_L1_dn_elkton").glob("*.tiff")):
        assert embed(server, path, fit="resize").status_code == 422


def test_golden_tokens_come_back_over_http(shared: Path, tmp_path: Path) -> None:
    train = str(LANDMOE.with_name("landmoe-train"))
    checkpoint, bundle = tmp_path / "xxs.safetensors", tmp_path / "xxs"
    for command in (
        ["import-reference", str(shared / "golden/reference_XXS.pth"), "-o", str(checkpoint)],
        ["export", str(checkpoint), "-o", str(bundle)],
    ):
        done = run(*command, program=train, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    with np.load(shared / "golden/reference_XXS.npz") as file:
        golden = dict(file)
    reference = golden["tokens"]
    with (
        ServerProcess("--bundle", str(bundle)) as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
    ):
        for i, expected in enumerate(reference):
            form = {
                "datetime": datetime.fromisoformat(str(golden["time"][i])).replace(tzinfo=UTC).isoformat(),
                "lat": repr(float(golden["lat"][i])),
                "lon": repr(float(golden["lon"][i])),
                "pooling": "tokens",
                "units": "dn",
            }
            files = {"tile": (f"{i}.tif", geotiff(golden["dn"][i]), "image/tiff")}
            answer = client.post("/embed", data=form, files=files, headers={"cache-control": "no-cache"})
            assert answer.status_code == 200, answer.text
            tokens = np.array(json.loads(answer.content)["data"][0]["embedding"], np.float32)
            assert tokens.shape == (105, 108)
            assert np.abs(tokens - expected).max() <= GOLDEN_TOLERANCE * np.abs(reference).max()
