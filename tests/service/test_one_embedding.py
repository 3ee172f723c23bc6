"""A tile has one embedding, however it comes and however it is given back. With the package's own model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from model.bands import DN_OFFSET, DN_SCALE
from service.app import create_app
from service.rasters import delivery
from service.settings import Settings
from tests.rasters import ORIGIN, dn_pixels, geotiff
from tests.service import deliveries

FRESH = {"Cache-Control": "no-cache"}
WHEN = deliveries.ACQUIRED
SIDE = 40
ROW, COL = 1, 2  # of the window in the scene that is the tile
SCENE = dn_pixels(130, 170, seed=9)
PIXELS = SCENE[:, ROW * SIDE : (ROW + 1) * SIDE, COL * SIDE : (COL + 1) * SIDE]
PLACE = (ORIGIN[0] + 30 * COL * SIDE, ORIGIN[1] - 30 * ROW * SIDE)
TILE = geotiff(PIXELS, origin=PLACE)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(engine_threads=1, log_level="warning"))) as client:
        yield client


@pytest.fixture(scope="module", params=["mean", "patch_mean_std", "tokens"])
def pooling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(client: TestClient, pooling: str) -> np.ndarray:
    """Computed by itself, past the cache."""
    return embedding(send(client, [TILE], pooling=pooling)[0])


def send(
    client: TestClient, tiles: list[bytes], headers: dict[str, str] = FRESH, **data: Any
) -> list[dict[str, Any]]:
    parts = [("tile", (f"{n}.tif", tile)) for n, tile in enumerate(tiles)]
    response = client.post("/embed", files=parts, data={"datetime": WHEN} | data, headers=headers)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["data"]
    return items


def embedding(item: dict[str, Any]) -> np.ndarray:
    return np.array(item["embedding"], np.float32)


def test_in_a_batch(client: TestClient, pooling: str, alone: np.ndarray) -> None:
    others = [geotiff(dn_pixels(seed=seed)) for seed in range(13)]
    for at in (0, 6, 13):
        items = send(client, [*others[:at], TILE, *others[at:]], pooling=pooling)
        assert embedding(items[at]).tobytes() == alone.tobytes()


def test_from_the_cache(client: TestClient, pooling: str, alone: np.ndarray) -> None:
    send(client, [TILE], headers={}, pooling=pooling)
    [item] = send(client, [TILE], headers={}, pooling=pooling)
    assert item["cached"] is True
    assert embedding(item).tobytes() == alone.tobytes()
    again = geotiff(PIXELS, origin=PLACE, compress="lzw")  # by its pixels, not by its bytes
    [item] = send(client, [again], headers={}, pooling=pooling)
    assert item["cached"] is True
    assert embedding(item).tobytes() == alone.tobytes()


@pytest.mark.parametrize("stride", ["40", "20"])
def test_in_a_scene(client: TestClient, pooling: str, alone: np.ndarray, stride: str) -> None:
    items = send(client, [geotiff(SCENE)], pooling=pooling, fit="grid", stride=stride)
    step = SIDE // int(stride)
    [item] = [i for i in items if (i["row"], i["col"]) == (ROW * step, COL * step)]
    assert embedding(item).tobytes() == alone.tobytes()


def test_as_delivered_per_band(client: TestClient, pooling: str, alone: np.ndarray) -> None:
    mtl = deliveries.mtl()
    for files, data, at in (
        (deliveries.parts(PIXELS, origin=PLACE, metadata=mtl), {}, 0),
        (deliveries.parts(SCENE, metadata=mtl), {"fit": "grid"}, ROW * 4 + COL),
    ):
        response = client.post("/embed", files=files, data={"pooling": pooling} | data, headers=FRESH)
        assert embedding(response.json()["data"][at]).tobytes() == alone.tobytes()


def test_stacked(client: TestClient, pooling: str, alone: np.ndarray, tmp_path: Path) -> None:
    files = deliveries.parts(PIXELS, origin=PLACE, metadata=deliveries.mtl())
    delivery.stack(deliveries.write(tmp_path / "product", files), tmp_path / "tile.tif")
    stacked = (tmp_path / "tile.tif").read_bytes()
    [item] = send(client, [stacked], pooling=pooling, datetime="", datetime_source="tag")
    assert embedding(item).tobytes() == alone.tobytes()


def test_in_other_units_and_another_order(client: TestClient, alone: np.ndarray, pooling: str) -> None:
    reflectance = (PIXELS * DN_SCALE + DN_OFFSET).astype(np.float64)
    [item] = send(client, [geotiff(reflectance, origin=PLACE)], pooling=pooling)
    assert item["units"] == "reflectance"
    assert embedding(item).tobytes() == alone.tobytes()
    backwards = geotiff(np.ascontiguousarray(PIXELS[::-1]), origin=PLACE)
    [item] = send(client, [backwards], pooling=pooling, bands="7,6,5,4,3,2,1")
    assert embedding(item).tobytes() == alone.tobytes()


def test_in_each_format(client: TestClient, pooling: str, alone: np.ndarray) -> None:
    def answer(wanted: str) -> bytes:
        data = {"datetime": WHEN, "pooling": pooling, "format": wanted}
        response = client.post("/embed", files={"tile": TILE}, data=data, headers=FRESH)
        assert response.status_code == 200, response.text
        return response.content

    given: dict[str, Any] = {
        "base64": base64.b64decode(json.loads(answer("base64"))["data"][0]["embedding"]),
        "ndjson": embedding(json.loads(answer("ndjson"))),
        "npy": np.load(io.BytesIO(answer("npy"))),
        "geojson": embedding(json.loads(answer("geojson"))["features"][0]["properties"]),
        "parquet": np.array(pq.read_table(io.BytesIO(answer("parquet")))["embedding"][0].as_py(), np.float32),
    }
    for name, value in given.items():
        data = value if isinstance(value, bytes) else value.tobytes()
        assert data == alone.tobytes(), name
