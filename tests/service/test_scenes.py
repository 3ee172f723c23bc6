"""fit=grid: the windows of scenes, over HTTP."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from model.windows import windows
from service.schemas import EmbedResponse
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import M
from tests.service.scene_requests import LONG, SCENE, TIFF, damaged, grid


@pytest.mark.parametrize("stride", [40, 25, 60])
@pytest.mark.parametrize("creation", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
def test_every_window_is_what_its_cut_is_alone(
    client: TestClient, stride: int, creation: dict[str, Any]
) -> None:
    response = grid(client, geotiff(SCENE, **creation), stride=str(stride), datetime="2020-08-02")
    assert response.status_code == 200, response.text
    EmbedResponse.model_validate(response.json())
    items = response.json()["data"]
    expected = list(windows(170, 130, stride))
    assert [(i["row"], i["col"], i["window"]) for i in items] == [
        (w.row, w.col, list(w.window)) for w in expected
    ]
    assert len({item["id"] for item in items}) == len(items)
    for item, w in list(zip(items, expected, strict=True))[:: max(1, len(items) // 6)]:
        row, col, height, width = w.window
        cut = SCENE[:, row : row + height, col : col + width]
        origin = (386_355.0 + 30 * col, 5_293_245.0 - 30 * row)
        alone = client.post(
            "/embed", content=geotiff(cut, origin=origin), params={"datetime": "2020-08-02"}, headers=TIFF
        ).json()["data"][0]
        same = ("embedding", "valid_fraction", "units", "crs", "datetime", "metadata_source", "warnings")
        assert {name: item[name] for name in same} == {name: alone[name] for name in same}
        assert item["lat"] == pytest.approx(alone["lat"], abs=1e-9)
        assert item["lon"] == pytest.approx(alone["lon"], abs=1e-9)
        assert np.allclose(item["footprint"]["coordinates"], alone["footprint"]["coordinates"], atol=1e-9)


def test_empty_windows_are_skipped_and_counted(client: TestClient) -> None:
    pixels = SCENE.copy()
    pixels[:, :80, :] = 0
    pixels[3, 80:120, 40:80] = 0
    response = grid(client, geotiff(pixels))
    assert response.json()["summary"] == {
        "tiles": 1, "windows": 12, "embedded": 5, "skipped_empty": 7, "failed": 0,
    }  # fmt: skip
    assert [(i["row"], i["col"]) for i in response.json()["data"]] == [(2, 0), (2, 2), (3, 0), (3, 1), (3, 2)]
    array = np.load(io.BytesIO(grid(client, geotiff(pixels), format="npy").content))
    assert array.shape == (5, M)
    whole = np.load(io.BytesIO(grid(client, geotiff(pixels), format="npy", on_error="nan").content))
    assert whole.shape == (12, M)
    assert np.isnan(whole[:, 0]).tolist() == [True] * 6 + [False, True] + [False] * 4
    assert np.array_equal(whole[[6, 8, 9, 10, 11]], array)


def test_a_scene_without_a_valid_pixel_is_refused(client: TestClient) -> None:
    response = grid(client, geotiff(np.zeros((7, 90, 90), np.uint16)))
    assert response.json()["type"].endswith("empty-tile")


def test_a_scene_without_a_place_works_and_says_so(client: TestClient) -> None:
    items = grid(client, geotiff(SCENE, crs=None)).json()["data"]
    assert all(i["footprint"] is None and i["lat"] is None for i in items)
    assert {w["code"] for i in items for w in i["warnings"]} == {"missing-georeferencing"}
    given = grid(client, geotiff(SCENE, crs=None), lat="47.5", lon="13").json()["data"]
    assert {(i["lat"], i["metadata_source"]["location"]) for i in given} == {(47.5, "request")}


def test_windows_of_a_placed_scene_have_their_own_place(client: TestClient) -> None:
    items = grid(client, geotiff(SCENE), lat="47.5", lon="13").json()["data"]
    assert len({(i["lat"], i["lon"]) for i in items}) == len(items)
    assert {w["code"] for i in items for w in i["warnings"]} == {"unused-parameter"}
    asked = grid(client, geotiff(SCENE), lat="47.5", lon="13", location_source="request").json()["data"]
    assert {(i["lat"], i["lon"]) for i in asked} == {(47.5, 13)}
    none = grid(client, geotiff(SCENE), location_source="none").json()["data"]
    assert {i["lat"] for i in none} == {None}
    assert none[0]["footprint"] is not None


def test_units_are_decided_for_the_whole_scene(client: TestClient) -> None:
    """A dark corner alone could not be told from reflectance times 10,000."""
    pixels = SCENE.copy()
    pixels[:, :40, :40] = 3000
    corner = client.post("/embed", content=geotiff(pixels[:, :40, :40]), headers=TIFF)
    assert corner.json()["type"].endswith("unknown-units")
    response = grid(client, geotiff(pixels))
    assert {item["units"] for item in response.json()["data"]} == {"dn"}
    assert grid(client, geotiff(SCENE // 10)).json()["type"].endswith("unknown-units")
    explicit = grid(client, geotiff(SCENE // 10), units="reflectance_1e4")
    assert {item["units"] for item in explicit.json()["data"]} == {"reflectance_1e4"}


def test_several_scenes_and_wrong_ones_in_one_request(client: TestClient) -> None:
    files = [geotiff(SCENE), b"GIF89a", geotiff(dn_pixels(30, 30)), geotiff(dn_pixels(40, 81))]
    parts = [("tile", (f"{n}.tif", data)) for n, data in enumerate(files)]
    body = client.post("/embed", files=parts, data={"fit": "grid"}).json()
    assert [i["index"] for i in body["data"]] == [0] * 12 + [1, 2, 3, 3]
    assert [i["error"]["status"] for i in body["data"][12:14]] == [415, 422]
    assert body["summary"] == {"tiles": 4, "windows": 16, "embedded": 14, "skipped_empty": 0, "failed": 2}


def test_a_scene_damaged_further_down_says_where_it_ends(client: TestClient) -> None:
    """A large one; a small one is read as a whole first, to tell its units."""
    response = grid(client, damaged(LONG, 2940))
    assert response.status_code == 200
    *good, last = response.json()["data"]
    assert len(good) == 72 * 10
    assert all("embedding" in item for item in good)
    assert last["error"]["type"].endswith("unreadable-tiff")
    assert grid(client, damaged(SCENE, 100)).status_code == 422


def test_more_than_json_has_goes_into_parquet(make_client: MakeClient) -> None:
    response = grid(make_client(max_json_items=11), geotiff(SCENE), format="parquet")
    table = pq.read_table(io.BytesIO(response.content))
    assert table["row"].to_pylist() == [w.row for w in windows(170, 130)]
    assert grid(make_client(max_json_items=11), geotiff(SCENE), format="ndjson").status_code == 200


def test_cached_windows_come_from_the_cache(client: TestClient) -> None:
    headers = {"Content-Type": "image/tiff"}
    states = []
    for stride in ("40", "40", "20"):
        response = client.post(
            "/embed", content=geotiff(SCENE), params={"fit": "grid", "stride": stride}, headers=headers
        )
        states.append(response.headers["x-cache"])
    assert states == ["miss", "hit", "miss"]
    cut = geotiff(SCENE[:, 40:80, :40], origin=(386_355.0, 5_293_245.0 - 1200))
    assert client.post("/embed", content=cut, headers=headers).headers["x-cache"] == "hit"
