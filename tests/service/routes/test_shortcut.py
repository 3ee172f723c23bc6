"""The short way to the routes for tiles leaves everything as FastAPI would have it."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from service.routes import classify, embed
from service.telemetry.metrics import REGISTRY

TIFF = {"Content-Type": "image/tiff"}


def test_routes_have_nothing_that_only_fastapi_would_do() -> None:
    for route in (*embed.router.routes, *classify.router.routes):
        assert isinstance(route, APIRoute)
        assert "{" not in route.path
        assert not route.dependencies
        assert not route.dependant.dependencies
        assert route.response_model is None


@pytest.mark.parametrize("path", ["/embed", "/classify"])
def test_other_methods_and_paths_go_on(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 405
    assert client.get(path).headers["allow"] == "POST"
    moved = client.post(f"{path}/", content=b"", headers=TIFF, follow_redirects=False)
    assert (moved.status_code, moved.headers["location"].endswith(path)) == (307, True)
    assert client.post(f"{path}/more", content=b"", headers=TIFF).status_code == 404


def test_below_a_root_path(client: TestClient) -> None:
    below = TestClient(client.app, root_path="/tiles")
    answer = below.post("/tiles/embed", content=b"", headers=TIFF)
    assert answer.json()["type"].endswith("missing-tile")


def test_errors_are_problems_and_the_metric_knows_the_route(client: TestClient) -> None:
    def count() -> float:
        labels = {"route": "/embed", "outcome": "not-a-tiff"}
        return REGISTRY.get_sample_value("landmoe_requests_total", labels) or 0

    before = count()
    answer = client.post("/embed", content=b"no raster", headers=TIFF)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert count() == before + 1
