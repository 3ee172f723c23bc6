"""promtool, from this machine or from the Prometheus image, and what a running service exposes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from model import bundle_writer
from model.config import Preprocessing
from tests.integration.compose import ROOT, unavailable
from tests.model.networks import SMALL, onnx_bytes, scrambled
from tests.rasters import geotiff
from tests.service.server_process import ServerProcess

# Metric name → names of its labels.
Exposed = dict[str, set[str]]
Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    """Runs promtool in a folder that has copies of Prometheus' files and of the rule tests."""
    folder = tmp_path_factory.mktemp("prometheus")
    for file in (*(ROOT / "docker/prometheus").glob("*.yml"), ROOT / "tests/docker/alerts_test.yml"):
        shutil.copy(file, folder)
    for path in (folder, *folder.parents):  # the image's user is another one
        if path.owner() == folder.owner() and path.name.startswith(("pytest", "prometheus")):
            path.chmod(0o755)
    command = ["promtool"]
    if shutil.which("promtool") is None:
        reason = unavailable()
        image = _prometheus_image()
        if (
            reason is None
            and subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode
        ):
            reason = f"no image {image}"
        if reason is not None:
            message = f"no promtool on this machine, and {reason}"
            if os.environ.get("LANDMOE_REQUIRE_DOCKER"):
                pytest.fail(message)
            pytest.skip(message)
        command = ["docker", "run", "--rm", "--network", "none", "-v", f"{folder}:/rules:ro", "-w", "/rules"]
        command += ["--entrypoint", "promtool", image]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def _prometheus_image() -> str:
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["image"]
    default = re.fullmatch(r"\$\{\w+:-(.+)\}", image)
    assert default is not None, image
    return os.environ.get("PROMETHEUS_IMAGE", default[1])


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exposed]:
    """Every metric of a service that has answered a request, with its labels.

    Its bundle is a small one that tells the routing of tokens, which a bundle need not.
    """
    folder = tmp_path_factory.mktemp("bundles") / "small"
    encoder = onnx_bytes(scrambled().model.encoder)
    bundle_writer.write(
        folder, name="small", version="1", trained=False, config=SMALL, preprocessing=Preprocessing(),
        training={}, metrics={}, parity={}, card="", files={"encoder.fp32.onnx": encoder},
    )  # fmt: skip
    with ServerProcess("--bundle", str(folder)) as server:
        answer = httpx.post(f"{server.url}/embed", content=geotiff(), headers={"Content-Type": "image/tiff"})
        assert answer.status_code == 200, answer.text
        text = httpx.get(f"{server.url}/metrics").text
        found: Exposed = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        yield found
