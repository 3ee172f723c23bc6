"""The share of each expert in what is served, from the network to /metrics."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from model.outputs import ROUTING
from service.app import create_app
from service.batching import routing
from service.batching.routing import ROUTED_TOKENS
from service.encoder_engine import EncoderEngine
from service.settings import Settings
from tests.model.networks import SMALL, inputs, onnx_bytes, scrambled
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import BUNDLE, FakeEngine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EncoderEngine:
    folder = tmp_path_factory.mktemp("bundle")
    content = onnx_bytes(scrambled().model.encoder)
    (folder / "encoder.fp32.onnx").write_bytes(content)
    files = BUNDLE.files | {"encoder.fp32.onnx": hashlib.sha256(content).hexdigest()}
    return EncoderEngine(replace(BUNDLE, path=Path(folder), config=SMALL, files=files))


def counted() -> dict[tuple[str, str], float]:
    [family] = ROUTED_TOKENS.collect()
    return {
        (sample.labels["layer"], sample.labels["expert"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_every_choice_of_every_tile_is_counted_once(engine: EncoderEngine) -> None:
    assert engine.gives_routing
    before = counted()
    tiles = [geotiff(dn_pixels(seed=n)) for n in range(5)]
    with TestClient(create_app(Settings(cache_mb=0), engine)) as client:
        parts = [("tile", (f"{n}.tif", data)) for n, data in enumerate(tiles)]
        assert client.post("/embed", files=parts).status_code == 200
        text = client.get("/metrics").text
    added = {key: value - before.get(key, 0) for key, value in counted().items()}
    for layer, experts in enumerate(SMALL.num_experts):
        found = [added[str(layer), str(expert)] for expert in range(experts)]
        assert sum(found) == 5 * SMALL.num_tokens * SMALL.top_k
    assert 'landmoe_routed_tokens_total{expert="0",layer="0"}' in text


def test_shares_become_whole_numbers(engine: EncoderEngine) -> None:
    dn, metadata = inputs(4)
    shares = engine.run(dn, metadata, (ROUTING,))[ROUTING]
    before = counted()
    routing.observe(shares, SMALL)
    added = [value - before.get(key, 0) for key, value in counted().items()]
    assert all(number == int(number) for number in added)


def test_what_is_not_finite_is_left_out() -> None:
    before = counted()
    routing.observe(np.full((1, SMALL.depth, 5), np.nan, np.float32), SMALL)
    assert counted() == before


def test_an_engine_without_the_output_serves_all_the_same() -> None:
    with TestClient(create_app(Settings(), FakeEngine())) as client:
        response = client.post("/embed", content=geotiff(), headers={"Content-Type": "image/tiff"})
    assert response.status_code == 200
