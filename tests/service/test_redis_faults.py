"""A running service whose Redis is stopped, paused, restarted, full or full of something else, under load.

Nothing is kept in the process here, so that every hit is Redis' own. Each test prints what became of its
requests; none may be lost.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.rasters import dn_pixels, geotiff
from tests.redis_server import RedisServer, redis_server
from tests.service.server_process import ServerProcess

pytestmark = pytest.mark.server
TIFF = {"Content-Type": "image/tiff"}
TILES = [geotiff(dn_pixels(seed=seed)) for seed in range(12)]
TIMEOUT_S = 60
CLIENTS = 4


class _Load:
    """Clients that send tiles without pause; every embedding is compared with the uncached one."""

    def __init__(self, url: str, truth: list[list[float]]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._truth = truth
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(i,)) for i in range(CLIENTS)]

    def _send(self, seed: int) -> None:
        order = random.Random(seed)
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            while not self._stop.is_set():
                index = order.randrange(len(TILES))
                try:
                    answer = client.post("/embed", content=TILES[index], headers=TIFF)
                except httpx.HTTPError as error:
                    self.outcomes["lost"] += 1
                    self.wrong.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.outcomes["answered"] += 1
                    self.outcomes[answer.headers["X-Cache"]] += 1
                    if answer.json()["data"][0]["embedding"] != self._truth[index]:
                        self.wrong.append(f"tile {index} has another embedding")
                elif answer.status_code in (429, 503, 504):
                    self.outcomes["refused"] += 1
                else:
                    self.outcomes["lost"] += 1
                    self.wrong.append(answer.text)

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until_hits(self, more: int) -> None:
        """Waits until so many more tiles have come from the cache."""
        before = self.outcomes["hit"]
        _until(lambda: self.outcomes["hit"] >= before + more)

    def until_answers(self, more: int) -> None:
        """Waits until so many more requests were answered."""
        before = self.outcomes["answered"]
        _until(lambda: self.outcomes["answered"] >= before + more)

    def check(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Prints the figures; nothing was lost, refused or wrong."""
        counts = {key: self.outcomes[key] for key in ("answered", "refused", "lost", "hit", "miss")}
        sent = counts["answered"] + counts["refused"] + counts["lost"]
        with capsys.disabled():
            print(f"\n{name}: {sent} requests sent, " + ", ".join(f"{n} {key}" for key, n in counts.items()))
        assert self.wrong == []
        assert counts["answered"] == sent > 0


class _Service:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def embed(self, index: int, *, fresh: bool = False) -> httpx.Response:
        headers = TIFF | ({"Cache-Control": "no-cache"} if fresh else {})
        answer = self._client.post("/embed", content=TILES[index], headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def redis(self) -> str:
        """How the service says that Redis does; it is ready in any case."""
        answer = self._client.get("/readyz")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["redis"])

    def metric(self, name: str, labels: str = "") -> float:
        text = self._client.get("/metrics").text
        found = re.search(rf"^{name}{re.escape(labels)} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"{name}{labels} is not in the metrics"
        return float(found[1])

    def close(self) -> None:
        self._client.close()


@contextmanager
def _service(redis: RedisServer, *options: str) -> Iterator[_Service]:
    with ServerProcess(
        *options,
        LANDMOE_REDIS_URL=redis.url,
        LANDMOE_CACHE_MB="0",
        # The machine may be busy with other things; only faults that are made here shall be seen.
        LANDMOE_REDIS_TIMEOUT_MS="400",
        LANDMOE_REDIS_CONNECT_TIMEOUT_MS="400",
    ) as process:
        service = _Service(process.url)
        try:
            yield service
        finally:
            service.close()
        assert process.stop() == 0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def running(redis: RedisServer) -> Iterator[_Service]:
    redis.start()
    with _service(redis) as service:
        yield service


@pytest.fixture
def service(redis: RedisServer, running: _Service) -> _Service:
    """The service, with a Redis that works and is empty."""
    if not redis.running:
        redis.start()
    with redis.client() as client:
        client.flushall()
    _until(lambda: running.redis() == "ok")
    return running


@pytest.fixture(scope="module")
def truth(running: _Service) -> list[list[float]]:
    return [running.embed(i, fresh=True).json()["data"][0]["embedding"] for i in range(len(TILES))]


def test_hit_miss_and_bypass_are_told(service: _Service, redis: RedisServer) -> None:
    first = service.embed(0)
    _until(lambda: _keys(redis) == 2)  # the result and the file's alias
    second, fresh = service.embed(0), service.embed(0, fresh=True)
    assert [r.headers["X-Cache"] for r in (first, second, fresh)] == ["miss", "hit", "bypass"]
    items = [r.json()["data"][0] for r in (first, second, fresh)]
    assert [item.pop("cached") for item in items] == [False, True, False]
    assert items[0] == items[1] == items[2]
    assert "decode" not in second.headers["Server-Timing"]
    assert _keys(redis) == 2


def test_redis_stopped_and_started_again_under_load(
    service: _Service, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    with _Load(service.url, truth) as load:
        load.until_hits(20)
        redis.stop()
        _until(lambda: service.redis() == "unavailable")
        assert service.metric("landmoe_redis_breaker_open") == 1
        load.until_answers(20)
        redis.start()
        _until(lambda: service.redis() == "ok")
        load.until_hits(20)
    load.check("Redis stopped and started again", capsys)
    assert service.metric("landmoe_redis_breaker_open") == 0
    assert service.metric("landmoe_redis_errors_total", '{kind="connection"}') > 0


def test_redis_paused_under_load(
    service: _Service, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    with _Load(service.url, truth) as load:
        load.until_hits(20)
        redis.pause()
        try:
            _until(lambda: service.redis() == "unavailable")
            load.until_answers(20)
        finally:
            redis.resume()
        _until(lambda: service.redis() == "ok")
        load.until_hits(20)
    load.check("Redis paused and resumed", capsys)
    assert service.metric("landmoe_redis_errors_total", '{kind="timeout"}') > 0


def test_redis_restarted_under_load(
    service: _Service, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, as an upgrade does: the connections are gone, the server is there."""
    with _Load(service.url, truth) as load:
        for _ in range(3):
            load.until_hits(20)
            redis.stop()
            redis.start()
        load.until_hits(20)
    load.check("Redis restarted three times", capsys)


def test_redis_full_under_load(
    service: _Service, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It refuses writes and answers reads: what it has is still used."""
    with redis.client() as client, _Load(service.url, truth) as load:
        _until(lambda: _keys(redis) == 2 * len(TILES))
        client.config_set("maxmemory", "100kb")  # less than it already uses; by default nothing is evicted
        try:
            client.delete(*sorted(client.keys("landmoe:*"))[::2])
            _until(lambda: service.redis() == "refuses-writes")
            hits, misses = load.outcomes["hit"], load.outcomes["miss"]
            _until(lambda: load.outcomes["hit"] > hits + 10 and load.outcomes["miss"] > misses + 10)
            assert service.metric("landmoe_redis_breaker_open") == 0
            assert service.metric("landmoe_redis_refuses_writes") == 1
        finally:
            client.config_set("maxmemory", "0")
        _until(lambda: service.redis() == "ok")
        _until(lambda: _keys(redis) == 2 * len(TILES))
    load.check("Redis full", capsys)
    assert service.metric("landmoe_redis_errors_total", '{kind="out-of-memory"}') > 0


def test_values_of_another_type_and_damaged_ones_under_load(
    service: _Service, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    order = random.Random(0)
    with redis.client() as client, _Load(service.url, truth) as load:
        for _ in range(10):
            load.until_answers(10)
            for key in client.keys("landmoe:*"):
                if order.randrange(3) == 0:
                    with client.pipeline(transaction=True) as at_once:  # the service may write it between
                        at_once.delete(key)
                        at_once.rpush(key, "of another type")
                        at_once.execute()
                elif order.randrange(2):
                    client.set(key, order.randbytes(order.randrange(700)))
                else:  # one byte of it changes; a list is left as it is
                    value = bytearray(client.get(key) or b"") if client.type(key) == b"string" else b""
                    if value:
                        value[order.randrange(len(value))] ^= 1 << order.randrange(8)
                        client.set(key, bytes(value))
    load.check("Values of another type and damaged ones", capsys)
    assert service.metric("landmoe_cache_lookups_total", '{level="redis",result="damaged"}') > 0
    assert service.redis() == "ok"


@pytest.mark.slow
def test_two_workers_share_what_one_has_computed(redis: RedisServer, service: _Service) -> None:
    """And their metrics add up."""
    assert service.redis() == "ok"
    with _service(redis, "--workers", "2") as both:
        for i in range(len(TILES)):
            both.embed(i)
        _until(lambda: _keys(redis) == 2 * len(TILES))
        for i in 2 * list(range(len(TILES))):
            assert both.embed(i).headers["X-Cache"] == "hit"
        lookups = "landmoe_cache_lookups_total"
        assert both.metric(lookups, '{level="redis",result="hit"}') == 2 * len(TILES)
        assert both.metric(lookups, '{level="alias",result="hit"}') == 2 * len(TILES)
        assert both.metric(lookups, '{level="alias",result="miss"}') == len(TILES)
        _until(lambda: both.metric("landmoe_redis_writes_total", '{result="ok"}') == 2 * len(TILES))
        assert both.metric("landmoe_redis_breaker_open") == 0


def test_redis_absent_at_start_and_appearing_later() -> None:
    with redis_server() as redis, _service(redis) as service:
        _until(lambda: service.redis() == "unavailable")
        assert [service.embed(0).headers["X-Cache"] for _ in range(3)] == ["miss"] * 3
        redis.start()
        _until(lambda: service.redis() == "ok")
        _until(lambda: service.embed(0).headers["X-Cache"] == "hit")


def _keys(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.dbsize())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
