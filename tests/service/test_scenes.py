"""fit=grid: the windows of scenes, over HTTP."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from httpx import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from model.windows import windows
from service.files import File
from service.http.spool import Spool
from service.outcomes import Skipped
from service.parameters import RequestOptions, TileParameters
from service.prepare import PreparedTile
from service.rasters.geotiff import Limits
from service.rasters.grid import SceneGrid
from service.schemas import EmbedResponse
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import BUNDLE, FakeEngine, M
from tests.service.server_process import ServerProcess

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}
SCENE = dn_pixels(170, 130)
SPOOL = Spool(None, memory_bytes=8_000_000, max_bytes=1 << 30)


def grid(client: TestClient, data: bytes, **params: Any) -> Response:
    return client.post("/embed", content=data, params={"fit": "grid"} | params, headers=TIFF)


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


def test_large_scenes_are_looked_at_in_patches() -> None:
    """More than a megapixel, mostly empty: the patches, else the first strip with something in it."""
    for area in ((slice(0, 1100), slice(0, 1100)), (slice(1050, 1100), slice(0, 60))):
        pixels = np.zeros((7, 1100, 1100), np.uint16)
        pixels[(slice(None), *area)] = 9000
        scene = open_grid(geotiff(pixels, compress="deflate"))
        found = scene.take(10_000)
        scene.close()
        assert {tile.fields["units"] for _, tile in found if isinstance(tile, PreparedTile)} == {"dn"}


def open_grid(data: bytes, stride: int = 40) -> SceneGrid:
    options = RequestOptions(fit="grid", stride=stride)
    return SceneGrid(0, File(data, None), TileParameters(), options, BUNDLE, Limits(), SPOOL)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(40, 150),
    width=st.integers(40, 90),
    stride=st.integers(5, 120),
    take=st.integers(1, 50),
    block=st.sampled_from([0, 16, 48, 128]),
    seed=st.integers(0, 3),
)
def test_windows_are_the_pixels_of_the_file(
    height: int, width: int, stride: int, take: int, block: int, seed: int
) -> None:
    pixels = dn_pixels(height, width, seed=seed)
    pixels[:, np.random.default_rng(seed).random((height, width)) < 0.02] = 0
    tiled = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    scene = open_grid(geotiff(pixels, **tiled), stride)
    found: list[Any] = []
    while part := scene.take(take):
        assert len(part) <= take
        found += part
    scene.close()
    expected = list(windows(height, width, stride))
    assert [grid for grid, _ in found] == expected
    assert len(scene) == len(expected)
    for (_, tile), w in zip(found, expected, strict=True):
        row, col, rows, cols = w.window
        cut = pixels[:, row : row + rows, col : col + cols]
        if not (cut > 0).all(axis=0).any():
            assert tile == Skipped("empty")
        else:
            assert np.array_equal(tile.dn, cut)


def test_several_scenes_and_wrong_ones_in_one_request(client: TestClient) -> None:
    files = [geotiff(SCENE), b"GIF89a", geotiff(dn_pixels(30, 30)), geotiff(dn_pixels(40, 81))]
    parts = [("tile", (f"{n}.tif", data)) for n, data in enumerate(files)]
    body = client.post("/embed", files=parts, data={"fit": "grid"}).json()
    assert [i["index"] for i in body["data"]] == [0] * 12 + [1, 2, 3, 3]
    assert [i["error"]["status"] for i in body["data"][12:14]] == [415, 422]
    assert body["summary"] == {"tiles": 4, "windows": 16, "embedded": 14, "skipped_empty": 0, "failed": 2}


def test_a_scene_damaged_further_down_says_where_it_ends(client: TestClient) -> None:
    data = geotiff(dn_pixels(400, 400), compress="deflate", blockysize=16)
    response = grid(client, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert response.status_code in (200, 422)
    if response.status_code == 200:
        assert response.json()["data"][-1]["error"]["type"].endswith("unreadable-tiff")


@pytest.mark.parametrize(
    ("limits", "params", "words"),
    [
        ({"max_windows": 11}, {}, ["12 windows", "11", "stride"]),
        ({"max_json_items": 11}, {}, ["12 windows", "json", "parquet"]),
        ({"max_json_items": 11}, {"format": "geojson"}, ["geojson", "parquet"]),
        ({"max_pixels": 22_000}, {}, ["170", "22,000"]),
        ({"max_strip_mb": 0.05}, {}, ["strip", "50,000"]),
    ],
)
def test_limits_of_scenes(
    make_client: MakeClient, limits: dict[str, Any], params: dict[str, str], words: list[str]
) -> None:
    response = grid(make_client(**limits), geotiff(SCENE), **params)
    assert response.status_code == 413, response.text
    for word in words:
        assert word in response.json()["detail"]


def test_more_than_json_has_goes_into_parquet(make_client: MakeClient) -> None:
    response = grid(make_client(max_json_items=11), geotiff(SCENE), format="parquet")
    table = pq.read_table(io.BytesIO(response.content))
    assert table["row"].to_pylist() == [w.row for w in windows(170, 130)]
    assert grid(make_client(max_json_items=11), geotiff(SCENE), format="ndjson").status_code == 200


def test_an_admitted_scene_is_never_refused_and_waits_its_turn(make_client: MakeClient) -> None:
    """Many more windows than the queue holds, while others come: all answered, few queued at a time."""
    engine = FakeEngine()
    client = make_client(engine=engine, queue_size=40, max_inflight_windows=16, max_batch_size=8)
    depths: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            depths.append(client.get("/readyz").json()["queue_depth_tiles"])

    with ThreadPoolExecutor(3) as pool:
        watching = pool.submit(watch)
        scenes = [
            pool.submit(grid, client, geotiff(dn_pixels(400, 400, seed=n)), stride="20") for n in (1, 2)
        ]
        for _ in range(20):
            single = client.post("/embed", content=geotiff(), headers=TIFF)
            assert single.status_code == 200, single.text
        for scene in scenes:
            response = scene.result(60)
            assert response.status_code == 200, response.text
            assert response.json()["summary"]["embedded"] == 19 * 19
        stop.set()
        watching.result(10)
    assert max(depths) <= 2 * 16 + 1


def test_the_deadline_counts_from_the_last_progress(make_client: MakeClient) -> None:
    """Each chunk takes less than the deadline, all together more; a chunk that hangs is given up."""
    engine = _Slow(0.15)
    client = make_client(
        engine=engine, max_inflight_windows=4, request_timeout_s=0.6, request_timeout_per_tile_ms=0
    )
    response = grid(client, geotiff(SCENE))
    assert response.status_code == 200, response.text
    engine.seconds = 1.5
    assert grid(client, geotiff(dn_pixels(170, 130, seed=4))).status_code == 504


class _Slow(FakeEngine):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def run(self, dn: Any, *args: Any, **kwargs: Any) -> Any:
        threading.Event().wait(self.seconds)
        return super().run(dn, *args, **kwargs)


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


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 x 800 px: 67 MB of pixels."""
    path = tmp_path_factory.mktemp("tall") / "tall.tif"
    strip = dn_pixels(400, 800)
    with rasterio.open(
        path, "w", driver="GTiff", count=7, height=6_000, width=800, dtype="uint16", tiled=True,
        compress="deflate", zlevel=1, crs="EPSG:32633",
        transform=rasterio.Affine(30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0),
    ) as file:  # fmt: skip
        for row in range(0, 6_000, 400):
            file.write(strip, window=rasterio.windows.Window(0, row, 800, 400))
    return path


def test_memory_does_not_grow_with_the_scene(tall: Path) -> None:
    def peak(rows: int) -> int:
        scene = SceneGrid(
            0,
            File(tall, None),
            TileParameters(),
            RequestOptions(fit="grid", stride=80),
            BUNDLE,
            Limits(),
            SPOOL,
        )
        tracemalloc.start()
        count = 0
        while count < rows * scene.cols and (part := scene.take(64)):
            count += len(part)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        scene.close()
        assert count >= min(rows * scene.cols, len(scene))
        return found

    short, long = peak(10), peak(75)
    assert long < 1.3 * short
    assert long < 40_000_000


@pytest.mark.server
def test_a_scene_ends_with_its_client_and_outlives_the_call_to_stop() -> None:
    with ServerProcess() as server:
        url, scene = f"{server.url}/embed", geotiff(dn_pixels(400, 400))

        def depth() -> int:
            return int(httpx.get(f"{server.url}/readyz").json()["queue_depth_tiles"])

        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, content=scene, params={"fit": "grid", "stride": "8"}, headers=TIFF, timeout=1.5)
        wait_until(lambda: depth() == 0)
        with ThreadPoolExecutor(1) as pool:
            params = {"fit": "grid", "format": "npy"}
            answer = pool.submit(httpx.post, url, content=scene, params=params, headers=TIFF, timeout=60)
            wait_until(lambda: depth() > 0)
            assert server.stop() == 0
            response = answer.result(60)
        assert response.status_code == 200
        array = np.load(io.BytesIO(response.content))
        assert len(array) == 100
        assert np.isfinite(array).all()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
