"""POST /classify with the probes of a bundle."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from httpx import Response
from rasterio.enums import ColorInterp
from starlette.testclient import TestClient

from model import bundle_writer
from model.probe import LinearProbe, encode
from service.schemas import ClassifyResponse
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import BUNDLE, CONFIG, FakeEngine, M

TIFF = {"Content-Type": "image/tiff"}
LABELS = tuple(f"class {n}" for n in range(8))


def make_probes() -> dict[str, LinearProbe]:
    rng = np.random.default_rng(5)

    def weights(classes: int, dim: int) -> np.ndarray:
        return rng.normal(0, 1, (classes, dim)).astype(np.float32)

    return {
        "many": LinearProbe(
            "multi-label", "mean", ("source", *LABELS[1:]), weights(8, M), np.zeros(8, np.float32),
            threshold=0.4, scale=np.full(8, 0.5, np.float32), shift=np.full(8, -0.1, np.float32),
            metrics={"F1": 0.5},
        ),
        "one": LinearProbe(
            "multi-class", "patch_mean_std", LABELS, weights(8, 2 * M), np.zeros(8, np.float32)
        ),
        "tokens": LinearProbe(
            "multi-class", "tokens", ("a", "b"), weights(2, CONFIG.num_tokens * M), np.zeros(2, np.float32)
        ),
    }  # fmt: skip


PROBES = make_probes()


@pytest.fixture
def client(make_client: MakeClient, tmp_path: Path) -> TestClient:
    files: dict[str, bytes | Path] = {
        f"probes/{name}.safetensors": encode(probe) for name, probe in PROBES.items()
    }
    bundle = bundle_writer.write(
        tmp_path / "bundle", name="probed", version="1", trained=True, config=CONFIG,
        preprocessing=BUNDLE.preprocessing, training={}, metrics={}, parity={}, card="card",
        files={"encoder.fp32.onnx": b"x", **files},
    )  # fmt: skip
    return make_client(engine=FakeEngine(bundle))


def classify(client: TestClient, data: bytes | None = None, **params: str) -> Response:
    return client.post("/classify", content=data or geotiff(), params=params, headers=TIFF)


def embedding(client: TestClient, pooling: str) -> np.ndarray:
    response = client.post(
        "/embed", content=geotiff(), params={"pooling": pooling, "format": "npy"}, headers=TIFF
    )
    return np.load(io.BytesIO(response.content))


@pytest.mark.parametrize("name", PROBES)
def test_predictions_are_the_probes_of_the_raw_embedding(client: TestClient, name: str) -> None:
    probe = PROBES[name]
    response = classify(client, probe=name, top_k="100")
    assert response.status_code == 200, response.text
    ClassifyResponse.model_validate(response.json())
    assert (response.json()["probe"], response.json()["task"]) == (name, probe.task)
    assert response.json()["pooling"] == probe.pooling
    item = response.json()["data"][0]
    want = probe.predict(embedding(client, probe.pooling))[0]
    got = {p["label"]: np.float32(p["probability"]) for p in item["predictions"]}
    assert got == dict(zip(probe.labels, want, strict=True))
    ranked = [p["probability"] for p in item["predictions"]]
    assert ranked == sorted(ranked, reverse=True)
    assert "embedding" not in item
    if probe.task == "multi-label":
        assert item["selected"] == [p["label"] for p in item["predictions"] if p["probability"] >= 0.4]
        assert response.json()["threshold"] == 0.4
    else:
        assert item["selected"] == [item["predictions"][0]["label"]]
        assert sum(ranked) == pytest.approx(1, abs=1e-5)


def test_defaults_are_the_first_probe_all_its_labels_and_five_of_a_multi_class_one(
    client: TestClient,
) -> None:
    item = classify(client).json()["data"][0]
    assert item["probe"] == "many"
    assert len(item["predictions"]) == 8
    assert len(classify(client, probe="one").json()["data"][0]["predictions"]) == 5
    assert len(classify(client, probe="one", top_k="2").json()["data"][0]["predictions"]) == 2
    assert len(classify(client, probe="tokens").json()["data"][0]["predictions"]) == 2


def test_the_threshold_selects_and_filters_nothing(client: TestClient) -> None:
    none = classify(client, threshold="1").json()
    assert none["data"][0]["selected"] == []
    assert len(none["data"][0]["predictions"]) == 8
    assert none["threshold"] == 1
    every = classify(client, threshold="0", top_k="1").json()["data"][0]
    assert len(every["selected"]) == 8
    assert len(every["predictions"]) == 1


def test_predictions_use_the_cached_embedding(client: TestClient) -> None:
    client.post("/embed", content=geotiff(), headers=TIFF)
    response = classify(client)
    assert response.headers["x-cache"] == "hit"
    assert response.json()["data"][0]["cached"] is True


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"probe": "no"}, "unknown-probe", ["'no'", "many, one, tokens"]),
        ({"pooling": "cls"}, "bad-parameter", ["cls", "mean"]),
        ({"probe": "one", "threshold": "0.5"}, "bad-parameter", ["threshold", "multi-class"]),
        ({"threshold": "1.5"}, "bad-parameter", ["threshold"]),
        ({"top_k": "0"}, "bad-parameter", ["top_k"]),
        ({"format": "base64"}, "bad-parameter", ["base64", "parquet"]),
        ({"format": "geotiff-classes"}, "bad-parameter", ["fit=grid"]),
        ({"normalize": "true"}, "unknown-parameter", ["normalize"]),
        ({"stride": "20"}, "bad-parameter", ["fit=grid"]),
    ],
)
def test_wrong_options_are_explained(
    client: TestClient, params: dict[str, str], code: str, words: list[str]
) -> None:
    response = classify(client, **params)
    assert response.status_code == 422
    assert response.json()["type"].endswith(code)
    for word in words:
        assert word in response.json()["detail"]


def test_the_probes_own_pooling_may_be_given(client: TestClient) -> None:
    assert classify(client, probe="one", pooling="patch_mean_std").status_code == 200


def test_a_bundle_without_probes_says_so(make_client: MakeClient) -> None:
    client = make_client()
    response = classify(client)
    assert response.json()["type"].endswith("unknown-probe")
    assert "no probes" in response.json()["detail"]
    assert client.get("/model").json()["probes"] == []


def test_model_lists_the_probes(client: TestClient) -> None:
    probes = client.get("/model").json()["probes"]
    assert [probe["name"] for probe in probes] == ["many", "one", "tokens"]
    assert probes[0] == {
        "name": "many", "task": "multi-label", "pooling": "mean", "labels": ["source", *LABELS[1:]],
        "threshold": 0.4, "calibrated": True, "metrics": {"F1": 0.5},
    }  # fmt: skip
    assert probes[1]["threshold"] is None


def test_every_format_has_the_same_probabilities(client: TestClient) -> None:
    labels = PROBES["many"].labels
    item = classify(client).json()["data"][0]
    want = {p["label"]: np.float32(p["probability"]) for p in item["predictions"]}
    row = np.load(io.BytesIO(classify(client, format="npy").content))
    assert row.shape == (1, 8)
    assert dict(zip(labels, row[0], strict=True)) == want
    table = pq.read_table(io.BytesIO(classify(client, format="parquet").content))
    # A label that is called as another column is has a name of its own.
    columns = ["label source", *labels[1:]]
    assert [table[column][0].as_py() for column in columns] == [float(want[label]) for label in labels]
    assert table["selected"][0].as_py() == item["selected"]
    [line] = classify(client, format="ndjson").text.splitlines()
    assert json.loads(line)["predictions"] == item["predictions"]
    [feature] = classify(client, format="geojson").json()["features"]
    assert feature["properties"]["selected"] == item["selected"]


@pytest.mark.parametrize("stride", [40, 20])
def test_a_classified_scene_is_a_raster(client: TestClient, stride: int) -> None:
    pixels = dn_pixels(130, 100)
    pixels[:, :40, :40] = 0
    scene = geotiff(pixels)
    params = {"fit": "grid", "stride": str(stride)}
    items = classify(client, scene, **params, top_k="100").json()["data"]
    response = classify(client, scene, **params, format="geotiff-classes")
    assert response.headers["content-type"].startswith("image/tiff")
    with rasterio.MemoryFile(response.content) as memory, memory.open() as raster:
        classes = raster.read(1)
        assert json.loads(raster.tags()["LABELS"]) == list(PROBES["many"].labels)
        assert raster.tags()["PROBE"] == "many"
        assert raster.nodata == classes[0, 0] == 255
        assert raster.colorinterp == (ColorInterp.palette,)
        shown = [raster.colormap(1)[index] for index in range(len(PROBES["many"].labels))]
        assert len(set(shown)) == len(shown)
        assert classes.shape == ((130 - 40) // stride + 1, (100 - 40) // stride + 1)
        assert raster.crs.to_string() == "EPSG:32633"
        for item in items:
            assert PROBES["many"].labels[classes[item["row"], item["col"]]] == item["predictions"][0]["label"]
            # The pixel's centre is the window's.
            x, y = raster.xy(item["row"], item["col"])
            row_off, col_off, height, width = item["window"]
            with rasterio.MemoryFile(scene) as other, other.open() as source:
                assert (x, y) == pytest.approx(source.transform @ (col_off + width / 2, row_off + height / 2))
    response = classify(client, scene, **params, format="geotiff-probabilities")
    with rasterio.MemoryFile(response.content) as memory, memory.open() as raster:
        values = raster.read()
        assert raster.descriptions == PROBES["many"].labels
        assert np.isnan(values[:, 0, 0]).all()
        for item in items:
            found = dict(zip(PROBES["many"].labels, values[:, item["row"], item["col"]], strict=True))
            assert found == {p["label"]: np.float32(p["probability"]) for p in item["predictions"]}


@pytest.mark.parametrize("kind", ["geotiff-classes", "geotiff-probabilities"])
@pytest.mark.parametrize(
    ("scene", "params", "error"),
    [
        (geotiff(dn_pixels(30, 90)), {}, "wrong-size"),
        (geotiff(dn_pixels(90, 90, count=3)), {}, "wrong-band-count"),
        (geotiff(dn_pixels(90, 90)), {"lat": "91", "lon": "0"}, "bad-parameter"),
        (geotiff(dn_pixels(90, 90)), {"units": "percent"}, "bad-parameter"),
        (geotiff(np.zeros((7, 90, 90), np.uint16)), {}, "empty-tile"),
        (b"hello, world", {}, "not-a-tiff"),
    ],
)
def test_a_scene_that_cannot_be_classified_as_a_raster_says_why(
    client: TestClient, kind: str, scene: bytes, params: dict[str, str], error: str
) -> None:
    response = classify(client, scene, **params, fit="grid", format=kind)
    wanted = classify(client, scene, **params, fit="grid").json()
    assert wanted["type"].endswith(error)
    assert response.status_code == wanted["status"]
    assert response.json() == wanted | {"request_id": response.json()["request_id"]}
