"""The containers of the project, started; and the figures that tests measure, shown at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration import own_bundle
from tests.integration.compose import MAX_CONNECTIONS, MAX_TILES, Stack, free_port, scaled, timed, unavailable
from tests.integration.own_bundle import BUNDLE
from tests.rasters import dn_pixels, geotiff

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash.setdefault(_FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the figures."""
    lines = terminalreporter.config.stash.get(_FIGURES, [])
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("service", "prometheus")}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of one's own."""
    folder = tmp_path_factory.mktemp("bundles")
    own_bundle.put_into(folder)
    return folder


@pytest.fixture(scope="module")
def stack(ports: dict[str, int], bundles: Path, figures: list[str]) -> Iterator[Stack]:
    """The project built and started, without Grafana."""
    reason = unavailable()
    if reason is not None:
        if os.environ.get("LANDMOE_REQUIRE_DOCKER"):
            pytest.fail(reason)
        pytest.skip(f"needs a Docker engine with Compose: {reason}")
    stack = Stack(
        f"landmoe-test-{os.getpid()}",
        ["docker-compose.yml"],
        LANDMOE_VERSION="test",
        LANDMOE_REVISION="0123abc",
        LANDMOE_PUBLISH=f"127.0.0.1:{ports['service']}",
        PROMETHEUS_PUBLISH=f"127.0.0.1:{ports['prometheus']}",
        LANDMOE_MAX_TILES=str(MAX_TILES),
        LANDMOE_CACHE_MB="0",  # nothing in the process: a hit comes from Redis
        LANDMOE_REDIS_TIMEOUT_MS="1000",  # the machine may be busy with other things
        LANDMOE_REDIS_CONNECT_TIMEOUT_MS="1000",
        LANDMOE_BUNDLES=str(bundles),
        LANDMOE_BUNDLE=f"/bundles/{BUNDLE}",
        GATEWAY_MAX_CONNECTIONS=str(MAX_CONNECTIONS),
    )
    with timed(figures, "build the cpu image"):
        stack.compose("build", "landmoe")
    try:
        with timed(figures, "up: service, Redis and Prometheus, all healthy"):
            stack.up("landmoe", "redis", "prometheus")
        yield stack
    finally:
        with timed(figures, "down"):
            scaled(stack).compose("--profile", "single", "down", "-v", "--remove-orphans")


@pytest.fixture(scope="module")
def client(stack: Stack, ports: dict[str, int]) -> Iterator[httpx.Client]:
    """A client outside of the containers, of whatever has the published port."""
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['service']}", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def tiles() -> list[bytes]:
    return [geotiff(dn_pixels(seed=seed)) for seed in range(32)]
