"""Metrics of several workers: each worker's own, none of dead ones, and all on their own port."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.rasters import geotiff
from tests.service.server_process import ServerProcess

WORKER = re.compile(r'^landmoe_worker_resident_memory_bytes\{pid="(\d+)"\} (\S+)$', re.MULTILINE)


def pids(url: str) -> set[int]:
    """Workers that have measured themselves; one that starts is at 0."""
    return {int(pid) for pid, size in WORKER.findall(httpx.get(url).text) if float(size) > 10_000_000}


@pytest.mark.slow
@pytest.mark.server
def test_each_worker_is_told_and_dead_ones_are_forgotten() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics = f"http://127.0.0.1:{port}/metrics"
    with ServerProcess("--workers", "2", LANDMOE_METRICS_PORT=str(port)) as server:
        before = wait_for_two(metrics)
        for _ in range(8):
            response = httpx.post(
                f"{server.url}/embed", content=geotiff(), headers={"Content-Type": "image/tiff"}
            )
            assert response.status_code == 200
        deadline = time.monotonic() + 60
        counted = 'landmoe_requests_total{outcome="ok",route="/embed"} 8.0'
        while counted not in (text := httpx.get(metrics).text):  # the last one right after its answer
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        assert "landmoe_event_loop_lag_seconds_count" in text
        assert httpx.get(f"{server.url}/metrics").status_code == 404

        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while victim in (now := pids(metrics)) or len(now) < 2:
            assert time.monotonic() < deadline, now
            time.sleep(0.2)
        # What the dead one had counted is not lost.
        assert counted in httpx.get(metrics).text
        assert server.stop() == 0


def wait_for_two(url: str) -> set[int]:
    deadline = time.monotonic() + 60
    while len(found := pids(url)) < 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


@pytest.mark.server
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' shared memory")
def test_a_full_disk_cannot_reach_them(tmp_path: Path) -> None:
    """Who writes to a mapped file for which there is no room is ended by the kernel."""
    with ServerProcess("--workers", "2", TMPDIR=str(tmp_path)) as server:
        assert "landmoe_requests_total" in httpx.get(f"{server.url}/metrics").text
        assert not list(tmp_path.glob("landmoe-*"))
        assert server.stop() == 0
