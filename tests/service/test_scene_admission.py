"""Scenes within their limits take turns with other requests, and end with their client or their deadline."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine
from tests.service.load_accounts import FAULTY, metric
from tests.service.scene_requests import SCENE, TIFF, grid
from tests.service.server_process import ServerProcess


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
    limit_s = 3.5
    engine = _Slow(1)
    client = make_client(
        engine=engine, max_inflight_windows=4, request_timeout_s=limit_s, request_timeout_per_tile_ms=0
    )
    response = grid(client, geotiff(SCENE))
    assert response.status_code == 200, response.text
    assert len(engine.batches) * engine.seconds > limit_s
    engine.gate.clear()
    late = grid(client, geotiff(dn_pixels(170, 130, seed=4)))
    engine.gate.set()
    assert late.status_code == 504


class _Slow(FakeEngine):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def run(self, dn: Any, *args: Any, **kwargs: Any) -> Any:
        threading.Event().wait(self.seconds)
        return super().run(dn, *args, **kwargs)


@pytest.mark.server
def test_a_scene_ends_with_its_client_and_outlives_the_call_to_stop(tmp_path: Path) -> None:
    held, scene = tmp_path / "held", geotiff(dn_pixels(400, 400))
    held.touch()
    with ServerProcess(command=FAULTY, HELD_WHILE=str(held)) as server:

        def depth() -> int:
            return int(httpx.get(f"{server.url}/readyz", timeout=60).json()["queue_depth_tiles"])

        found = urlsplit(server.url)
        with socket.create_connection((found.hostname, found.port)) as client:
            head = f"POST /embed?fit=grid&stride=8 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(scene)}\r\n"
            client.sendall(f"{head}Content-Type: image/tiff\r\n\r\n".encode() + scene)
            wait_until(lambda: depth() > 0)
        while server.wait_for("request")["outcome"] != "disconnected":
            pass
        held.unlink()
        wait_until(lambda: depth() == 0)
        assert metric(server, "landmoe_batch_size_tiles_sum") <= 64  # of 46 x 46; a batch may have begun
        held.touch()
        with ThreadPoolExecutor(2) as pool:
            url, params = f"{server.url}/embed", {"fit": "grid", "format": "npy"}
            answer = pool.submit(httpx.post, url, content=scene, params=params, headers=TIFF, timeout=60)
            wait_until(lambda: depth() > 0)
            status = pool.submit(server.stop)
            server.wait_for("stopping")
            held.unlink()
            assert status.result() == 0
            response = answer.result(60)
        assert response.status_code == 200
        array = np.load(io.BytesIO(response.content))
        assert len(array) == 100
        assert np.isfinite(array).all()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
