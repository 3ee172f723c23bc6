"""POST /embed, as a client sees it."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from httpx import Response
from starlette.testclient import TestClient

from model import metadata
from service.parameters import EmbedOptions, TileParameters
from service.schemas import EmbedResponse
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import UNTRAINED, FakeEngine, M, expected

TIFF = {"Content-Type": "image/tiff"}


def embed(
    client: TestClient, data: bytes | None = None, headers: dict[str, str] | None = None, **params: str
) -> Response:
    return client.post(
        "/embed", content=geotiff() if data is None else data, params=params, headers=TIFF | (headers or {})
    )


def test_raw_body_gives_what_the_engine_gives_for_the_prepared_tile(client: TestClient) -> None:
    response = embed(client, datetime="2020-08-02T18:31:00Z", lat="47.5", lon="13.25")
    assert response.status_code == 200, response.text
    body = response.json()
    encoding = metadata.encode(metadata.parse_datetime("2020-08-02T18:31:00Z"), 47.5, 13.25)
    want = expected(dn_pixels()[None, :, :40, :40], encoding[None], "mean")[0]
    got = np.array(body["data"][0]["embedding"], np.float32)
    assert got.tobytes() == want.tobytes()
    assert body["model"] == {"name": "fake", "version": "0.0.1", "digest": "f" * 64, "precision": "fp32"}
    assert (body["pooling"], body["dim"]) == ("mean", M)
    assert body["summary"] == {"tiles": 1, "windows": 1, "embedded": 1, "skipped_empty": 0, "failed": 0}


def test_item_says_everything_of_the_contract(client: TestClient) -> None:
    response = embed(client, id="a tile", datetime="2020-08-02", units="dn")
    EmbedResponse.model_validate(response.json())
    item = response.json()["data"][0]
    assert item["id"] == "a tile"
    assert item["datetime"] == "2020-08-02"
    assert item["metadata_source"] == {"datetime": "request", "hour": "missing", "location": "file"}
    assert item["crs"] == "EPSG:32633"
    assert item["units"] == "dn"
    assert item["valid_fraction"] == 1
    assert item["cached"] is False
    assert item["warnings"] == []
    assert item["source"] is None
    assert item["footprint"]["type"] == "Polygon"
    lons, lats = zip(*item["footprint"]["coordinates"][0], strict=True)
    assert min(lons) < item["lon"] < max(lons)
    assert min(lats) < item["lat"] < max(lats)


def test_form_and_raw_body_give_the_same(client: TestClient) -> None:
    fields = {"datetime": "2020-08-02T18:31:00Z", "pooling": "cls", "normalize": "true"}
    raw = embed(client, **fields).json()["data"][0]
    form = client.post(
        "/embed",
        data=fields,
        files={"tile": ("../x/tile.tif", geotiff(), "image/tiff")},
        headers={"Cache-Control": "no-cache"},
    )
    assert form.status_code == 200, form.text
    item = form.json()["data"][0]
    assert item["source"] == "tile.tif"
    assert item | {"source": None} == raw


def test_blank_fields_count_as_missing(client: TestClient) -> None:
    names = [*TileParameters.model_fields, *EmbedOptions.model_fields]
    blank = client.post("/embed", data=dict.fromkeys(names, ""), files={"tile": geotiff()})
    assert blank.status_code == 200, blank.text
    assert blank.json()["data"][0]["embedding"] == embed(client).json()["data"][0]["embedding"]
    assert embed(client, lat="", lon=" ", pooling="").status_code == 200


@pytest.mark.parametrize("pooling", ["mean", "cls", "patch_mean", "patch_mean_std", "tokens"])
@pytest.mark.parametrize("normalize", ["false", "true"])
def test_every_pooling_in_every_format_is_the_same_numbers(
    client: TestClient, pooling: str, normalize: str
) -> None:
    kind = {"pooling": pooling, "normalize": normalize}
    body = embed(client, **kind).json()
    listed = np.array(body["data"][0]["embedding"], np.float32)
    assert listed.shape == ((105, M) if pooling == "tokens" else (body["dim"],))
    assert body["dim"] == (2 * M if pooling == "patch_mean_std" else M)
    coded = base64.b64decode(embed(client, format="base64", **kind).json()["data"][0]["embedding"])
    assert coded == listed.astype("<f4").tobytes()
    npy = embed(client, format="npy", **kind)
    assert npy.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(npy.content), allow_pickle=False)
    assert array.dtype == np.float32
    assert np.array_equal(array, listed[None])
    if normalize == "true":
        assert np.allclose(np.linalg.norm(listed, axis=-1), 1, atol=1e-6)


def test_accept_chooses_the_format_and_the_parameter_overrides_it(client: TestClient) -> None:
    npy = {"Accept": "application/x-npy, application/json;q=0.5"}
    assert embed(client, headers=npy).headers["content-type"] == "application/x-npy"
    assert embed(client, headers=npy, format="json").headers["content-type"] == "application/json"
    assert embed(client, headers={"Accept": "text/html, */*;q=0.1"}).status_code == 200


def test_lists_in_several_headers_are_one(client: TestClient) -> None:
    def kinds(accept: str) -> list[tuple[str, str]]:
        headers = [("Content-Type", "image/tiff"), ("Accept", "text/html"), ("Accept", accept)]
        headers += [("Cache-Control", "max-age=0"), ("Cache-Control", "no-cache")] * (accept == "*/*")
        answers = [client.post("/embed", content=geotiff(), headers=headers) for _ in range(3)]
        return [(answer.headers["Content-Type"], answer.headers.get("X-Cache", "")) for answer in answers]

    assert [kind for kind, _ in kinds("application/x-npy")] == ["application/x-npy"] * 3
    assert [kind for kind, _ in kinds("application/geo+json")] == ["application/geo+json"] * 3
    assert kinds("*/*") == [("application/json", "bypass")] * 3


def test_engine_is_asked_only_for_what_is_needed(client: TestClient, engine: FakeEngine) -> None:
    engine.asked.clear()
    embed(client, pooling="cls")
    assert engine.asked == [("cls",)]


def test_cache_hits_until_bypassed(client: TestClient, engine: FakeEngine) -> None:
    first = embed(client)
    batches = len(engine.batches)
    second = embed(client)
    # The same pixels in another layout are the same tile.
    third = embed(client, geotiff(compress="deflate", tiled=True, blockxsize=16, blockysize=16))
    assert [r.headers["x-cache"] for r in (first, second, third)] == ["miss", "hit", "hit"]
    assert [r.json()["data"][0]["cached"] for r in (first, second, third)] == [False, True, True]
    assert len(engine.batches) == batches
    assert second.headers["x-batch-size"] == "0"
    assert second.json()["data"][0]["embedding"] == first.json()["data"][0]["embedding"]
    fresh = embed(client, headers={"Cache-Control": "no-cache"})
    assert fresh.headers["x-cache"] == "bypass"
    assert fresh.headers["x-batch-size"] == "1"
    assert len(engine.batches) == batches + 1
    assert embed(client, pooling="cls").headers["x-cache"] == "miss"
    assert embed(client, datetime="2020-01-01").headers["x-cache"] == "miss"


def test_headers_tell_where_the_time_went(client: TestClient) -> None:
    response = embed(client, headers={"X-Request-ID": "abc-123"})
    assert response.headers["x-request-id"] == "abc-123"
    stages = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert set(stages) == {"decode", "cache", "queue", "inference", "format"}


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "<script>", "../"])
def test_an_unusable_request_id_is_replaced(client: TestClient, given: str) -> None:
    made = embed(client, headers={"X-Request-ID": given}).headers["x-request-id"]
    assert made != given
    assert len(made) == 32


def test_an_untrained_bundle_says_so_in_every_answer(make_client: MakeClient) -> None:
    client = make_client(engine=FakeEngine(UNTRAINED))
    for cached in (False, True):
        item = embed(client).json()["data"][0]
        assert item["cached"] is cached
        assert {w["code"] for w in item["warnings"]} == {"untrained-model", "missing-metadata-untrained"}
    assert client.get("/model").json()["trained"] is False


@pytest.mark.parametrize(
    ("params", "tags", "when", "where", "codes"),
    [
        ({}, {}, "missing", "file", set()),
        ({"location_source": "none"}, {}, "missing", "missing", set()),
        ({"location_source": "request"}, {}, "missing", "missing", set()),
        ({"lat": "47.7", "lon": "13.5"}, {}, "missing", "request", {"far-from-file"}),
        ({"lat": "1", "lon": "2", "location_source": "file"}, {}, "missing", "file", {"unused-parameter"}),
        ({"datetime": "2020-08-02T18:31:00"}, {}, "request", "file", {"assumed-utc"}),
        ({}, {"TIFFTAG_DATETIME": "2020:08:02 18:31:00"}, "missing", "file", set()),
        ({"datetime_source": "tag"}, {"TIFFTAG_DATETIME": "2020:08:02 18:31:00"}, "tag", "file", set()),
        ({"datetime_source": "tag"}, {}, "missing", "file", {"missing-datetime-tag"}),
        (
            {"datetime_source": "tag"},
            {"TIFFTAG_DATETIME": "yesterday"},
            "missing",
            "file",
            {"unreadable-datetime-tag"},
        ),
        (
            {"datetime_source": "none", "datetime": "2020-08-02"},
            {},
            "missing",
            "file",
            {"unused-parameter"},
        ),
    ],
)
def test_sources_of_metadata(
    client: TestClient, params: dict[str, str], tags: dict[str, str], when: str, where: str, codes: set[str]
) -> None:
    item = embed(client, geotiff(tags=tags), **params).json()["data"][0]
    assert item["metadata_source"]["datetime"] == when
    assert item["metadata_source"]["location"] == where
    assert (item["datetime"] is None) == (when == "missing")
    assert (item["lat"] is None) == (where == "missing")
    assert {w["code"] for w in item["warnings"]} == codes


def test_file_without_georeferencing_has_no_place(client: TestClient) -> None:
    item = embed(client, geotiff(crs=None), location_source="file").json()["data"][0]
    assert [item[key] for key in ("lat", "lon", "footprint", "crs")] == [None] * 4
    assert {w["code"] for w in item["warnings"]} == {"missing-georeferencing"}


@pytest.mark.parametrize("fit", ["crop", "grid"])
def test_a_crs_without_places_on_the_ground_is_told(client: TestClient, fit: str) -> None:
    for _ in range(2):  # by GDAL, then by what was learned of it
        item = embed(client, geotiff(crs="EPSG:4978"), fit=fit).json()["data"][0]
        assert [item[key] for key in ("lat", "lon", "footprint")] == [None] * 3
        assert item["crs"] == "EPSG:4978"
        assert item["metadata_source"]["location"] == "missing"
        assert "unresolved-georeferencing" in {w["code"] for w in item["warnings"]}


def test_several_tiles_share_a_request_and_fail_alone(client: TestClient) -> None:
    files = [("tile", (f"{n}.tif", data)) for n, data in enumerate([geotiff(), b"nonsense", geotiff()])]
    response = client.post(
        "/embed", files=files, data={"id": ["a", "b", ""], "lat": ["", "", "95"], "lon": ["", "", "3"]}
    )
    assert response.status_code == 200, response.text
    EmbedResponse.model_validate(response.json())
    first, second, third = response.json()["data"]
    assert (first["index"], first["id"], first["source"]) == (0, "a", "0.tif")
    assert second["index"] == 1
    assert second["error"]["status"] == 415
    assert third["error"]["type"].endswith("bad-parameter")
    assert response.json()["summary"]["failed"] == 2
