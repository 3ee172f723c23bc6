"""Several tiles in one request: their parameters, their errors, and every format with and without them."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx import Response
from shapely.geometry import shape
from starlette.testclient import TestClient

from service.schemas import EmbedResponse
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine, M

GOOD = [geotiff(dn_pixels(seed=seed)) for seed in range(4)]
FRESH = {"Cache-Control": "no-cache"}


def send(client: TestClient, files: list[bytes], route: str = "/embed", **data: Any) -> Response:
    parts = [("tile", (f"{n}.tif", content)) for n, content in enumerate(files)]
    return client.post(route, files=parts, data=data, headers=FRESH)


def test_metadata_may_come_as_a_file(client: TestClient) -> None:
    """As `curl -F metadata=@m.json` and a browser's Blob bring it."""
    objects = [{"id": "a", "datetime": "2020-08-02"}, {"id": "ä"}]
    content = json.dumps(objects, ensure_ascii=False).encode()

    def answer(content: bytes) -> Response:
        tiles = [("tile", (f"{n}.tif", file)) for n, file in enumerate(GOOD[:2])]
        part = ("metadata", ("m.json", content, "application/json"))
        return client.post("/embed", files=[*tiles, part], headers=FRESH)

    for sent in (content, b"\xef\xbb\xbf" + content):
        came = answer(sent).json()
        assert came == send(client, GOOD[:2], metadata=content.decode()).json()
        assert [item["id"] for item in came["data"]] == ["a", "ä"]
    assert answer(b"[" + b" " * 2_000_000).json()["type"].endswith("too-large")
    assert answer(b"\xff\xfe").json()["type"].endswith("bad-parameter")


def test_metadata_as_json_and_as_fields_are_the_same(client: TestClient) -> None:
    objects = [
        {"id": "a", "datetime": "2020-08-02T18:31:00Z", "lat": 47.5, "lon": 13.25, "units": "dn"},
        {"id": 7, "location_source": "none", "datetime": None},
        {},
    ]
    listed = send(client, GOOD[:3], metadata=json.dumps(objects))
    assert listed.status_code == 200, listed.text
    fields = send(
        client,
        GOOD[:3],
        id=["a", "7", ""],
        datetime=["2020-08-02T18:31:00Z", "", ""],
        lat=["47.5", "", ""],
        lon=["13.25", "", ""],
        units=["dn", "", ""],
        location_source=["", "none", ""],
    )
    assert listed.json()["data"] == fields.json()["data"]
    assert [item["id"] for item in listed.json()["data"]] == ["a", "7", "2"]
    assert [item["source"] for item in listed.json()["data"]] == ["0.tif", "1.tif", "2.tif"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("{", ["JSON"]),
        ("{}", ["array"]),
        ("[{}]", ["array of 1", "2 tiles"]),
        ("[" * 5000, ["JSON"]),
        ("null", ["array"]),
    ],
)
def test_unusable_metadata_fails_the_request(client: TestClient, metadata: str, words: list[str]) -> None:
    response = send(client, GOOD[:2], metadata=metadata)
    assert response.json()["type"].endswith("bad-parameter")
    for word in words:
        assert word in response.json()["detail"]


def test_metadata_beside_fields_is_refused(client: TestClient) -> None:
    response = send(client, GOOD[:1], metadata="[{}]", lat="5", lon="6")
    assert response.status_code == 422
    assert "lat, lon" in response.json()["detail"]


def test_a_wrong_object_fails_its_tile_only(client: TestClient) -> None:
    objects = [{"lat": 95, "lon": 3}, {"poling": 1}, 5, {"units": "dn"}]
    body = send(client, GOOD, metadata=json.dumps(objects)).json()
    assert [item.get("error", {}).get("status") for item in body["data"]] == [422, 422, 422, None]
    assert "poling" in body["data"][1]["error"]["detail"]


def test_equal_tiles_are_computed_once_and_answered_each(client: TestClient, engine: FakeEngine) -> None:
    engine.batches.clear()
    items = send(client, [GOOD[0]] * 5 + [GOOD[1]]).json()["data"]
    assert sum(engine.batches) == 2
    assert [item["index"] for item in items] == list(range(6))
    assert all(item["embedding"] == items[0]["embedding"] for item in items[:5])
    assert items[5]["embedding"] != items[0]["embedding"]


def test_if_all_fail_the_first_ones_status_stands_and_all_are_listed(client: TestClient) -> None:
    response = send(client, [b"GIF89a", geotiff(np.zeros((7, 41, 41), np.uint16))])
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"].endswith("not-a-tiff")
    assert [(e["index"], e["status"]) for e in body["errors"]] == [(0, 415), (1, 422)]
    assert set(body["errors"][0]) == {"index", "type", "status", "detail"}


def test_a_failure_of_the_engine_fails_its_tile_only(make_client: MakeClient) -> None:
    poisoned = dn_pixels()
    poisoned[0, 0, 0] = 12_345
    client = make_client(engine=FakeEngine(poison=12_345))
    body = send(client, [GOOD[0], geotiff(poisoned), GOOD[1]]).json()
    assert [item.get("error", {}).get("status") for item in body["data"]] == [None, 503, None]


# From here on: every format, with a tile that failed among good ones.
MIXED = [GOOD[0], b"GIF89a", GOOD[1]]


@pytest.fixture
def expected(client: TestClient) -> list[np.ndarray]:
    body = send(client, MIXED).json()
    EmbedResponse.model_validate(body)
    assert body["summary"] == {"tiles": 3, "windows": 3, "embedded": 2, "skipped_empty": 0, "failed": 1}
    return [np.array(body["data"][i]["embedding"], np.float32) for i in (0, 2)]


def test_base64(client: TestClient, expected: list[np.ndarray]) -> None:
    items = send(client, MIXED, format="base64").json()["data"]
    assert [base64.b64decode(items[i]["embedding"]) for i in (0, 2)] == [e.tobytes() for e in expected]
    assert items[1]["error"]["status"] == 415


def test_ndjson(client: TestClient, expected: list[np.ndarray]) -> None:
    response = send(client, MIXED, format="ndjson")
    assert response.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in response.text.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["error"] and row["error"]["status"] for row in rows] == [None, 415, None]
    assert np.array(rows[2]["embedding"], np.float32).tobytes() == expected[1].tobytes()


def test_npy_is_all_or_nothing_unless_asked(client: TestClient, expected: list[np.ndarray]) -> None:
    failed = send(client, MIXED, format="npy")
    assert failed.status_code == 415
    assert [e["index"] for e in failed.json()["errors"]] == [1]
    array = np.load(io.BytesIO(send(client, MIXED, format="npy", on_error="nan").content))
    assert array.shape == (3, M)
    assert array.dtype == np.float32
    assert np.isnan(array[1]).all()
    assert array[[0, 2]].tobytes() == np.stack(expected).tobytes()
    everything_failed = send(client, MIXED[1:2], format="npy", on_error="nan")
    assert everything_failed.status_code == 415


def test_geojson(client: TestClient, expected: list[np.ndarray]) -> None:
    response = send(client, MIXED, format="geojson", id=["x", "", "y"])
    assert response.headers["content-type"] == "application/geo+json"
    body = response.json()
    assert (body["type"], body["pooling"], body["summary"]["failed"]) == ("FeatureCollection", "mean", 1)
    first, second, third = body["features"]
    assert shape(first["geometry"]).is_valid
    assert (first["id"], first["properties"]["error"]) == ("x", None)
    assert (second["geometry"], second["properties"]["error"]["status"]) == (None, 415)
    assert np.array(third["properties"]["embedding"], np.float32).tobytes() == expected[1].tobytes()
    frame = geopandas.read_file(io.BytesIO(response.content))
    assert len(frame) == 3
    assert frame.crs.to_epsg() == 4326


def test_parquet_opens_in_geopandas(client: TestClient, expected: list[np.ndarray]) -> None:
    response = send(client, MIXED, format="parquet", datetime="2020-08-02T18:31:00Z", id=["x", "", "y"])
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    file = io.BytesIO(response.content)
    frame = geopandas.read_parquet(file)
    assert frame.crs.to_string() == "OGC:CRS84"
    assert list(frame.id) == ["x", "1", "y"]
    assert list(frame.error.notna()) == [False, True, False]
    assert frame.error[1].startswith("not-a-tiff: ")
    assert frame.geometry[1] is None
    assert str(frame.datetime[0]) == "2020-08-02 18:31:00+00:00"
    item = send(client, MIXED).json()["data"][0]
    assert frame.geometry[0].equals_exact(shape(item["footprint"]), 1e-12)
    assert (frame.lat[0], frame.lon[0]) == (item["lat"], item["lon"])
    here = geopandas.read_parquet(file, bbox=tuple(frame.geometry[0].bounds))
    assert "x" in set(here.id)
    table = pq.read_table(file)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), M)
    assert table["embedding"][1].as_py() is None
    got = np.array([table["embedding"][i].as_py() for i in (0, 2)], np.float32)
    assert not np.array_equal(got, np.stack(expected))  # another datetime
    fresh = pq.read_table(io.BytesIO(send(client, MIXED, format="parquet").content))
    assert np.array(fresh["embedding"][2].as_py(), np.float32).tobytes() == expected[1].tobytes()
    kept = pq.read_metadata(file).metadata
    assert kept[b"digest"].decode() == "f" * 64
    emb = json.loads(kept[b"emb"])
    assert (emb["model"]["digest"], emb["dimensions"], emb["normalized"]) == ("f" * 64, [M], False)
    geo = json.loads(kept[b"geo"])
    assert geo["version"] == "1.1.0"
    bounds = frame.geometry.dropna().total_bounds
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx(list(bounds))


def test_parquet_tells_a_day_from_its_midnight(client: TestClient) -> None:
    times = ["2020-08-02", "2020-08-02T00:00:00Z", ""]
    files = [geotiff(crs=None)] * 3
    table = pq.read_table(io.BytesIO(send(client, files, format="parquet", datetime=times).content))
    assert [found and found.isoformat() for found in table["datetime"].to_pylist()] == [
        "2020-08-02T00:00:00+00:00", "2020-08-02T00:00:00+00:00", None,
    ]  # fmt: skip
    assert table["metadata_source"].to_pylist() == [
        {"datetime": "request", "hour": "missing", "location": "missing"},
        {"datetime": "request", "hour": "request", "location": "missing"},
        {"datetime": "missing", "hour": "missing", "location": "missing"},
    ]


@pytest.mark.parametrize("pooling", ["tokens", "patch_mean_std"])
def test_parquet_of_larger_results(client: TestClient, pooling: str) -> None:
    table = pq.read_table(io.BytesIO(send(client, GOOD[:1], format="parquet", pooling=pooling).content))
    listed = send(client, GOOD[:1], pooling=pooling).json()["data"][0]["embedding"]
    got = np.array(table["embedding"][0].as_py(), np.float32)
    assert got.tobytes() == np.array(listed, np.float32).tobytes()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/geo+json", "application/geo+json"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("application/x-ndjson, application/json;q=0.1", "application/x-ndjson"),
        ("application/*", "application/json"),
    ],
)
def test_accept_knows_the_formats(client: TestClient, accept: str, kind: str) -> None:
    response = client.post("/embed", files={"tile": GOOD[0]}, headers={"Accept": accept})
    assert response.headers["content-type"] == kind


@pytest.mark.parametrize("wanted", ["ndjson", "geojson", "parquet", "npy"])
def test_a_tile_without_a_place_fits_every_format(client: TestClient, wanted: str) -> None:
    response = send(client, [geotiff(crs=None)], format=wanted)
    assert response.status_code == 200, response.text
    if wanted == "parquet":
        frame = geopandas.read_parquet(io.BytesIO(response.content))
        assert frame.geometry[0] is None
        assert np.isnan(frame.lat[0])
