"""A worker that is replaced serves what the others do."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from model.bundle import DEFAULT
from tests.service.server_process import ServerProcess

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
