"""The baselines of `bench service` answer what the service does: else their speed says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi.testclient import TestClient

from model import bundle
from service import sample
from service.app import create_app
from service.benchmarks import empty_app, plain_app
from service.settings import Settings


def test_plain_fastapi_embeds_as_the_service_does() -> None:
    contents = [sample.make(seed) for seed in range(3)]
    plain = TestClient(plain_app.create(str(bundle.load().encoder_path())))
    one = plain.post("/embed", content=contents[0], headers={"Content-Type": "image/tiff"}).json()
    parts = [("tile", ("tile.tif", content, "image/tiff")) for content in contents]
    several = plain.post("/embed", files=parts).json()
    with TestClient(create_app(Settings(engine_threads=1))) as service:
        ours = service.post("/embed", files=parts).json()
    expected = [item["embedding"] for item in ours["data"]]
    np.testing.assert_allclose(
        [item["embedding"] for item in several["data"]], expected, rtol=1e-5, atol=1e-5
    )
    assert one["data"] == [{"embedding": pytest.approx(expected[0], rel=1e-5, abs=1e-5)}]


def test_the_empty_route_takes_a_body() -> None:
    assert TestClient(empty_app.app).post("/embed", content=sample.make()).content == b""
