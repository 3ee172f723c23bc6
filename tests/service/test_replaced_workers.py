"""A worker that is replaced serves what the others do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from model.bundle import DEFAULT
from service.telemetry.worker_files import MULTIPROCESS_DIR
from tests.service.server_process import START_TIMEOUT_S, ServerProcess

pytestmark = pytest.mark.server


def test_a_bundle_that_was_exchanged_meanwhile_is_not_served_beside_the_old_one(tmp_path: Path) -> None:
    """One address would answer with either, and embeddings of two networks mean nothing to each other."""
    bundle = shutil.copytree(DEFAULT, tmp_path / "bundle")
    with ServerProcess("--workers", "2", "--bundle", str(bundle)) as server:
        for _ in range(2):
            server.wait_for("ready")
        parent = psutil.Process(server.process.pid)
        old = httpx.get(f"{server.url}/model").json()["digest"]
        manifest = bundle / "bundle.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": "99.0.0"}))
        victim = next(child for child in parent.children() if "spawn_main" in " ".join(child.cmdline()))
        os.kill(victim.pid, signal.SIGKILL)
        assert "has changed" in str(server.wait_for("worker did not start")["reason"])
        assert {httpx.get(f"{server.url}/model").json()["digest"] for _ in range(8)} == {old}
        assert server.stop() == 0


def test_metrics_that_were_removed_from_under_it_keep_no_worker_from_starting() -> None:
    """logind removes a user's shared memory when the session ends in which a service was started."""
    with ServerProcess("--workers", "2") as server:
        for _ in range(2):
            server.wait_for("ready")
        parent = psutil.Process(server.process.pid)
        victim = next(child for child in parent.children() if "spawn_main" in " ".join(child.cmdline()))
        shutil.rmtree(victim.environ()[MULTIPROCESS_DIR])
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        server.wait_for("the folder of metrics was removed")
        victim.kill()
        server.wait_for("ready")
        deadline = time.monotonic() + START_TIMEOUT_S
        while "landmoe_ready 1.0" not in httpx.get(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.stop() == 0
