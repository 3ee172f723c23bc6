"""A running service whose Redis is stopped, paused, restarted, full or full of something else, under load.

Nothing is kept in the process here, so that every hit is Redis' own. Each test prints what became of its
requests; none may be lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, redis_server
from tests.service.caching_service import TILES, CachingService, Load, caching_service, until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def running(redis: RedisServer) -> Iterator[CachingService]:
    redis.start()
    with caching_service(redis) as service:
        yield service


@pytest.fixture
def service(redis: RedisServer, running: CachingService) -> CachingService:
    """The service, with a Redis that works and is empty."""
    if not redis.running:
        redis.start()
    with redis.client() as client:
        client.flushall()
    until(lambda: running.redis() == "ok")
    return running


@pytest.fixture(scope="module")
def truth(running: CachingService) -> list[list[float]]:
    return [running.embed(i, fresh=True).json()["data"][0]["embedding"] for i in range(len(TILES))]


def test_hit_miss_and_bypass_are_told(service: CachingService, redis: RedisServer) -> None:
    first = service.embed(0)
    until(lambda: _keys(redis) == 2)  # the result and the file's alias
    second, fresh = service.embed(0), service.embed(0, fresh=True)
    assert [r.headers["X-Cache"] for r in (first, second, fresh)] == ["miss", "hit", "bypass"]
    items = [r.json()["data"][0] for r in (first, second, fresh)]
    assert [item.pop("cached") for item in items] == [False, True, False]
    assert items[0] == items[1] == items[2]
    assert "decode" not in second.headers["Server-Timing"]
    assert _keys(redis) == 2


def test_redis_stopped_and_started_again_under_load(
    service: CachingService, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Load(service.url, truth) as load:
        load.until_hits(20)
        redis.stop()
        until(lambda: service.redis() == "unavailable")
        assert service.metric("landmoe_redis_breaker_open") == 1
        load.until_answers(20)
        redis.start()
        until(lambda: service.redis() == "ok")
        load.until_hits(20)
    load.check("Redis stopped and started again", capsys)
    assert service.metric("landmoe_redis_breaker_open") == 0
    assert service.metric("landmoe_redis_errors_total", '{kind="connection"}') > 0


def test_redis_paused_under_load(
    service: CachingService, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Load(service.url, truth) as load:
        load.until_hits(20)
        redis.pause()
        try:
            until(lambda: service.redis() == "unavailable")
            load.until_answers(20)
        finally:
            redis.resume()
        until(lambda: service.redis() == "ok")
        load.until_hits(20)
    load.check("Redis paused and resumed", capsys)
    assert service.metric("landmoe_redis_errors_total", '{kind="timeout"}') > 0


def test_redis_restarted_under_load(
    service: CachingService, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, as an upgrade does: the connections are gone, the server is there."""
    with Load(service.url, truth) as load:
        for _ in range(3):
            load.until_hits(20)
            redis.stop()
            redis.start()
        load.until_hits(20)
    load.check("Redis restarted three times", capsys)


def test_redis_full_under_load(
    service: CachingService, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It refuses writes and answers reads: what it has is still used."""
    with redis.client() as client, Load(service.url, truth) as load:
        until(lambda: _keys(redis) == 2 * len(TILES))
        client.config_set("maxmemory", "100kb")  # less than it already uses; by default nothing is evicted
        try:
            client.delete(*sorted(client.keys("landmoe:*"))[::2])
            until(lambda: service.redis() == "refuses-writes")
            hits, misses = load.outcomes["hit"], load.outcomes["miss"]
            until(lambda: load.outcomes["hit"] > hits + 10 and load.outcomes["miss"] > misses + 10)
            assert service.metric("landmoe_redis_breaker_open") == 0
            assert service.metric("landmoe_redis_refuses_writes") == 1
        finally:
            client.config_set("maxmemory", "0")
        until(lambda: service.redis() == "ok")
        until(lambda: _keys(redis) == 2 * len(TILES))
    load.check("Redis full", capsys)
    assert service.metric("landmoe_redis_errors_total", '{kind="out-of-memory"}') > 0


def test_values_of_another_type_and_damaged_ones_under_load(
    service: CachingService, redis: RedisServer, truth: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    order = random.Random(0)
    with redis.client() as client, Load(service.url, truth) as load:
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
def test_two_workers_share_what_one_has_computed(redis: RedisServer, service: CachingService) -> None:
    """And their metrics add up."""
    assert service.redis() == "ok"
    with caching_service(redis, "--workers", "2") as both:
        for i in range(len(TILES)):
            both.embed(i)
        until(lambda: _keys(redis) == 2 * len(TILES))
        for i in 2 * list(range(len(TILES))):
            assert both.embed(i).headers["X-Cache"] == "hit"
        lookups = "landmoe_cache_lookups_total"
        assert both.metric(lookups, '{level="redis",result="hit"}') == 2 * len(TILES)
        assert both.metric(lookups, '{level="alias",result="hit"}') == 2 * len(TILES)
        assert both.metric(lookups, '{level="alias",result="miss"}') == len(TILES)
        until(lambda: both.metric("landmoe_redis_writes_total", '{result="ok"}') == 2 * len(TILES))
        assert both.metric("landmoe_redis_breaker_open") == 0


def test_redis_absent_at_start_and_appearing_later() -> None:
    with redis_server() as redis, caching_service(redis) as service:
        until(lambda: service.redis() == "unavailable")
        assert [service.embed(0).headers["X-Cache"] for _ in range(3)] == ["miss"] * 3
        redis.start()
        until(lambda: service.redis() == "ok")
        until(lambda: service.embed(0).headers["X-Cache"] == "hit")


def _keys(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.dbsize())
