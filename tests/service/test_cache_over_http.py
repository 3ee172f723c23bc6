"""What the cache does to answers: nothing but to make them sooner, and to say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.cache import Cache
from service.caching.cache_metrics import LOOKUPS, SHARED
from service.caching.memory_store import MemoryStore
from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import BUNDLE, FakeEngine

TIFF = {"Content-Type": "image/tiff"}
FRESH = {"Cache-Control": "no-cache"}
TILE = geotiff()


def _post(
    client: TestClient, data: bytes = TILE, *, fresh: bool = False, **parameters: Any
) -> httpx.Response:
    headers = TIFF | (FRESH if fresh else {})
    answer: httpx.Response = client.post("/embed", content=data, params=parameters, headers=headers)
    return answer


def _item(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    [item] = answer.json()["data"]
    return dict(item)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {**one, "cached": None} == {**other, "cached": None}


def _decoded(answer: httpx.Response) -> bool:
    return "decode;" in answer.headers["Server-Timing"]


def test_a_file_that_comes_again_is_neither_decoded_nor_computed(
    client: TestClient, engine: FakeEngine
) -> None:
    first = _post(client, datetime="2020-08-02T18:31:00", lat=10, lon=20)
    batches = list(engine.batches)
    before = LOOKUPS["alias", "hit"]._value.get()
    second = _post(client, datetime="2020-08-02T18:31:00", lat=10, lon=20)
    assert LOOKUPS["alias", "hit"]._value.get() == before + 1
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert second.headers["X-Batch-Size"] == "0"
    assert _decoded(first)
    assert not _decoded(second)
    assert engine.batches == batches
    assert (_item(first)["cached"], _item(second)["cached"]) == (False, True)
    assert _same(_item(first), _item(second))
    assert {w["code"] for w in _item(second)["warnings"]} >= {"assumed-utc", "far-from-file"}


def test_a_tile_is_looked_up_once(client: TestClient) -> None:
    _post(client)
    before = {name: count._value.get() for name, count in LOOKUPS.items()}
    assert _post(client, pooling="cls").headers["X-Cache"] == "miss"  # a file that is known, another output
    after = {name: count._value.get() for name, count in LOOKUPS.items()}
    assert {name: after[name] - before[name] for name in after if after[name] > before[name]} == {
        ("alias", "hit"): 1,
        ("memory", "miss"): 1,
    }


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"datetime": "2020-08-02"},
        {"datetime": "2020-08-02T00:00:00Z"},
        {"datetime": "2021-08-02", "datetime_source": "none"},
        {"datetime_source": "tag"},
        {"lat": 1, "lon": 2},
        {"location_source": "none"},
        {"location_source": "file", "lat": 1, "lon": 2},
        {"units": "dn"},
        {"units": "reflectance_1e4"},
        {"scale": 0.0000275, "offset": -0.2},
        {"scale": 0.0000275, "offset": -0.1},
        {"nodata": 9000},
        {"nodata": "none"},
        {"bands": "7,6,5,4,3,2,1"},
        {"fit": "crop"},
        {"fit": "resize"},
        {"pooling": "cls"},
        {"pooling": "tokens"},
        {"pooling": "patch_mean_std", "normalize": True},
        {"id": "mine"},
    ],
    ids=str,
)
def test_every_parameter_has_its_own_answer(client: TestClient, parameters: dict[str, Any]) -> None:
    """Whatever came before, with and without the cache the answer is the same."""
    _item(_post(client))
    _item(_post(client, pooling="mean", id="another"))
    fresh = _item(_post(client, fresh=True, **parameters))
    for _ in range(2):
        assert _same(_item(_post(client, **parameters)), fresh)
    assert _post(client, **parameters).headers["X-Cache"] == "hit"


def test_another_pooling_of_a_known_file_is_computed(client: TestClient, engine: FakeEngine) -> None:
    _post(client)
    other = _post(client, pooling="cls")
    assert other.headers["X-Cache"] == "miss"
    assert _same(_item(other), _item(_post(client, pooling="cls", fresh=True)))
    assert engine.asked[-1] == ("cls",)


def test_the_same_pixels_in_another_compression_are_decoded_and_found(
    client: TestClient, engine: FakeEngine
) -> None:
    _post(client)
    batches = list(engine.batches)
    answer = _post(client, geotiff(compress="deflate"))
    assert answer.headers["X-Cache"] == "hit"
    assert _item(answer)["cached"] is True
    assert _decoded(answer)
    assert engine.batches == batches


def test_of_several_tiles_the_least_is_told(client: TestClient) -> None:
    _post(client)
    new = geotiff(dn_pixels(seed=5))
    files = [("tile", (name, data)) for name, data in (("a.tif", TILE), ("b.tif", new), ("c.tif", b"II*\0"))]
    for expected, cached in (("miss", [True, False, None]), ("hit", [True, True, None])):
        answer = client.post("/embed", files=files)
        assert answer.headers["X-Cache"] == expected
        data = answer.json()["data"]
        assert [item.get("cached") for item in data] == cached
        assert [item.get("source") for item in data[:2]] == ["a.tif", "b.tif"]
        assert [item.get("id") for item in data[:2]] == ["0", "1"]
    assert _item(_post(client))["source"] is None


def test_a_bypassed_tile_leaves_no_trace(client: TestClient) -> None:
    assert _post(client, fresh=True).headers["X-Cache"] == "bypass"
    assert _post(client).headers["X-Cache"] == "miss"
    assert _post(client, fresh=True).headers["X-Cache"] == "bypass"
    assert _item(_post(client, fresh=True))["cached"] is False


def test_a_file_that_fails_is_not_remembered(client: TestClient) -> None:
    for _ in range(2):
        answer = _post(client, geotiff(dn_pixels(100, 100)))
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("wrong-size")


def test_nothing_is_kept_where_nothing_may_be(make_client: MakeClient) -> None:
    client = make_client(cache_mb=0)
    assert [_post(client).headers["X-Cache"] for _ in range(3)] == ["miss"] * 3


@pytest.fixture
def shared_cache() -> Iterator[Any]:
    """Makes services that share one cache, as they share one Redis."""
    cache = Cache(MemoryStore(10_000_000))
    with ExitStack() as stack:

        def make(engine: FakeEngine, **settings: Any) -> TestClient:
            app = create_app(Settings(**settings), engine, cache)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (BUNDLE, "hit"),
        (replace(BUNDLE, files={**BUNDLE.files, "encoder.fp32.onnx": "0" * 64}), "miss"),
        # The same encoder in another bundle: its results hold, what is said of a tile may not.
        (replace(BUNDLE, digest="0" * 64), "hit"),
    ],
    ids=["same", "other encoder", "other bundle"],
)
def test_another_model_shares_only_what_it_may(shared_cache: Any, bundle: Any, expected: str) -> None:
    one, other = shared_cache(FakeEngine()), shared_cache(FakeEngine(bundle))
    _post(one)
    answer = _post(other)
    assert answer.headers["X-Cache"] == expected
    assert _decoded(answer) == (bundle is not BUNDLE)


def test_a_service_with_tighter_limits_does_not_answer_for_a_known_file(shared_cache: Any) -> None:
    one, strict = shared_cache(FakeEngine()), shared_cache(FakeEngine(), max_pixels=1600)
    assert _post(one).status_code == 200
    assert _post(strict).status_code == 413


def test_equal_tiles_at_the_same_time_are_computed_once(make_client: MakeClient) -> None:
    engine = FakeEngine()
    client = make_client(engine=engine)
    before, decodes = SHARED._value.get(), _decodes()
    engine.gate.clear()
    engine.entered.clear()
    with ThreadPoolExecutor(9) as pool:
        blocked = pool.submit(_post, client, geotiff(dn_pixels(seed=9)))  # keeps the engine busy
        assert engine.entered.wait(20)
        equal = [pool.submit(_post, client) for _ in range(6)]
        bypassed = [pool.submit(_post, client, fresh=True) for _ in range(2)]
        deadline = time.monotonic() + 20
        while _decodes() < decodes + 9:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.gate.set()
        answers = [future.result() for future in equal + bypassed]
        blocked.result()
    assert sum(engine.batches) == 1 + 1 + 2
    assert all(_same(_item(answer), _item(answers[0])) for answer in answers)
    assert [answer.headers["X-Cache"] for answer in answers] == ["miss"] * 6 + ["bypass"] * 2
    assert SHARED._value.get() == before + 5


def _decodes() -> float:
    return REGISTRY.get_sample_value("landmoe_stage_duration_seconds_count", {"stage": "decode"}) or 0


def _written_out(answer: httpx.Response) -> bool:
    """Whether the answer was worked out at all, or is a text kept whole."""
    return "format;" in answer.headers["Server-Timing"]


def test_a_request_that_comes_a_third_time_gets_the_text_of_the_second(client: TestClient) -> None:
    answers = [_post(client, lat=10, lon=20) for _ in range(3)]
    assert [a.headers["X-Cache"] for a in answers] == ["miss", "hit", "hit"]
    assert answers[2].content == answers[1].content
    assert answers[2].headers["content-type"] == answers[1].headers["content-type"]
    assert (_written_out(answers[1]), _written_out(answers[2])) == (True, False)
    assert len({a.headers["X-Request-ID"] for a in answers}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"lat": 10, "lon": 21}},
        {"params": {"pooling": "cls"}},
        {"headers": {"Accept": "application/x-npy"}},
        {"headers": FRESH},
        {"content": geotiff(dn_pixels(seed=9))},
        {"files": {"tile": ("a.tif", TILE)}},
    ],
)
def test_only_the_same_request_gets_a_kept_text(client: TestClient, other: dict[str, Any]) -> None:
    same: dict[str, Any] = {"content": TILE, "params": {"lat": 10, "lon": 20}, "headers": TIFF}
    kept = [client.post("/embed", **same) for _ in range(3)][2]
    if "files" in other:
        changed = client.post("/embed", files=other["files"], params=same["params"])
    else:
        changed = client.post("/embed", **{**same, **other, "headers": TIFF | other.get("headers", {})})
    assert changed.status_code == 200
    assert _written_out(changed)
    assert changed.content != kept.content


def test_kept_texts_are_counted_as_answers(client: TestClient) -> None:
    def answered() -> float | None:
        return REGISTRY.get_sample_value("landmoe_tiles_total", {"outcome": "ok"})

    for _ in range(2):
        _post(client)
    before, hits = answered(), LOOKUPS["alias", "hit"]._value.get()
    assert _post(client).headers["X-Cache"] == "hit"
    assert answered() == (before or 0) + 1
    assert LOOKUPS["alias", "hit"]._value.get() == hits + 1


def test_a_refusal_is_never_kept(client: TestClient) -> None:
    for _ in range(3):
        answer = _post(client, data=TILE, units="furlongs")
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:landmoe:problem:bad-parameter"
