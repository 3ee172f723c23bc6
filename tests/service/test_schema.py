"""The application holds to its own OpenAPI document, whatever requests are made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.rasters import geotiff
from tests.service.fake_engine import FakeEngine

app: FastAPI = create_app(Settings(log_level="error"), FakeEngine())
# Half of the bodies are tiles, so that answers other than errors are looked at as well.
schemathesis.openapi.media_type("image/tiff", st.sampled_from([geotiff(), geotiff(crs=None)]) | st.binary())
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    """The application, started: schemathesis itself does not run lifespans for each case."""
    with TestClient(app):
        yield


def documented(method: str, path: str) -> Any:
    """A test of one operation: one for all would be several of the same name (see tests/conftest.py)."""

    @schema.include(path=path, method=method).parametrize()
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def answers(case: Any) -> None:
        # No schema can tell which bytes are a GeoTIFF, or that lat needs lon: such requests may be refused.
        # A made-up X-Timeout-Ms of 1 ms is rightly answered 504; without that header a 504 is a failure.
        response = case.call()
        late = response.status_code == 504 and "X-Timeout-Ms" in (case.headers or {})
        expected = [positive_data_acceptance, *[not_a_server_error] * late]
        case.validate_response(response, excluded_checks=expected)

    return answers


test_embed_is_as_documented = documented("POST", "/embed")
test_classify_is_as_documented = documented("POST", "/classify")
test_model_is_as_documented = documented("GET", "/model")
test_progress_is_as_documented = documented("GET", "/progress")
test_livez_is_as_documented = documented("GET", "/livez")
test_readyz_is_as_documented = documented("GET", "/readyz")
test_metrics_are_as_documented = documented("GET", "/metrics")


def test_there_is_no_other_operation() -> None:
    assert set(schema) == {"/embed", "/classify", "/model", "/progress", "/livez", "/readyz", "/metrics"}


@pytest.mark.parametrize("path", ["/embed", "/classify"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"pooling": "tokens", "format": "base64"},
        {"format": "npy"},
        {"format": "ndjson"},
        {"format": "geojson"},
        {"format": "parquet"},
        {"fit": "grid"},
    ],
    ids=str,
)
def test_good_answers_are_as_documented(path: str, params: dict[str, str]) -> None:
    """Requests made at random are seldom accepted."""
    with TestClient(app) as client:
        response = client.post(path, params=params, content=geotiff(), headers={"Content-Type": "image/tiff"})
    assert path == "/classify" or response.status_code == 200  # the fake bundle has no probes
    schema[path]["POST"].validate_response(response)
