"""The second level of the cache against a real Redis server."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from service.caching.codec import pack
from service.telemetry.metrics import REGISTRY
from tests.redis_server import RedisServer
from tests.service.caching.redis_caches import ONE, SIZE, TWO, counts, grown, redis_cache, until

pytestmark = pytest.mark.server


def test_what_one_process_keeps_another_finds_until_it_expires(server: RedisServer) -> None:
    async def main() -> None:
        before = counts()
        async with redis_cache(server.url) as one, redis_cache(server.url) as two:
            one.put({b"a": ONE, b"b": TWO})
            await until(lambda: grown(before).get("write-ok") == 2)
            assert await two.get([b"a", b"x", b"b"], SIZE) == [ONE, None, TWO]
            assert one.redis_state == two.redis_state == "ok"
        assert grown(before) == {"write-ok": 2, "memory-miss": 3, "redis-hit": 2, "redis-miss": 1}
        with server.client() as client:
            assert 0 < client.ttl(b"a") <= 100

    asyncio.run(main())


def test_the_first_trial_is_not_blamed_for_the_end_of_the_start(server: RedisServer) -> None:
    """Which holds the event loop: the garbage collector goes over all that was imported."""

    async def main() -> None:
        before, tried = counts(), _trials()
        async with redis_cache(server.url, timeout_s=1):
            await asyncio.sleep(0)
            time.sleep(1.5)  # noqa: ASYNC251  # nothing else runs on the loop meanwhile: that is the point
            await until(lambda: _trials() > tried)
        assert not {name for name in grown(before) if name.startswith("error")}

    asyncio.run(main())


def _trials() -> float:
    return REGISTRY.get_sample_value("landmoe_redis_duration_seconds_count", {"command": "trial"}) or 0


def test_what_redis_had_is_kept_in_the_process(server: RedisServer) -> None:
    async def main() -> None:
        with server.client() as client:
            client.set(b"a", pack(b"a", ONE))
        async with redis_cache(server.url, memory_bytes=10_000) as cache:
            assert await cache.get([b"a"], SIZE) == [ONE]
            before = counts()
            assert await cache.get([b"a"], SIZE) == [ONE]
            assert grown(before) == {"memory-hit": 1}

    asyncio.run(main())


def test_many_tiles_in_one_call(server: RedisServer) -> None:
    async def main() -> None:
        entries = {f"{i}".encode(): np.asarray([i, i], "<f4").tobytes() for i in range(1000)}
        before = counts()
        async with redis_cache(server.url) as cache:
            cache.put(entries)
            await until(lambda: grown(before).get("write-ok") == 1000)
            assert await cache.get(list(entries), SIZE) == list(entries.values())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("garbage", b"garbage"),
        ("empty", b""),
        ("text of another program", b"OK"),
        ("without header", ONE),
        ("of another key", pack(b"other", ONE)),
        ("too short", pack(b"a", ONE[:4])),
        ("too long", pack(b"a", ONE + TWO)),
        ("not finite", pack(b"a", np.asarray([1, np.nan], "<f4").tobytes())),
        ("cut off", pack(b"a", ONE)[:-1]),
        ("newer", b"LM\x02" + pack(b"a", ONE)[3:]),
    ],
)
def test_a_damaged_or_foreign_value_is_a_miss_and_counted(
    server: RedisServer, name: str, value: bytes
) -> None:
    async def main() -> None:
        with server.client() as client:
            client.set(b"a", value)
        before = counts()
        async with redis_cache(server.url) as cache:
            assert await cache.get([b"a"], SIZE) == [None]
            assert grown(before) == {"memory-miss": 1, "redis-damaged": 1}
            cache.put({b"a": ONE})
            await until(lambda: grown(before).get("write-ok") == 1)
            assert await cache.get([b"a"], SIZE) == [ONE]

    asyncio.run(main())


def test_a_value_of_another_type_is_a_miss_and_replaced(server: RedisServer) -> None:
    async def main() -> None:
        with server.client() as client:
            client.rpush(b"a", "a list")
            client.hset(b"b", "a", "hash")
            client.set(b"c", pack(b"c", TWO))
        before = counts()
        async with redis_cache(server.url) as cache:
            assert await cache.get([b"a", b"b", b"c"], SIZE) == [None, None, TWO]
            cache.put({b"a": ONE, b"b": ONE})
            await until(lambda: grown(before).get("write-ok") == 2)
            assert await cache.get([b"a", b"b", b"c"], SIZE) == [ONE, ONE, TWO]
            assert cache.redis_state == "ok"

    asyncio.run(main())


def test_writes_that_find_no_room_in_the_queue_are_dropped_and_counted(server: RedisServer) -> None:
    async def main() -> None:
        before = counts()
        async with redis_cache(server.url, queue=500) as cache:
            started = time.monotonic()
            cache.put({f"{i}".encode(): b"0" * 100 for i in range(10_000)})
            assert time.monotonic() - started < 5
            await until(lambda: grown(before).get("write-ok", 0) > 0)
            more = grown(before)
        assert more["write-ok"] <= 5
        assert more["write-ok"] + more["write-dropped"] == 10_000

    asyncio.run(main())


def test_what_is_queued_is_written_before_the_service_stops(server: RedisServer) -> None:
    async def main() -> None:
        async with redis_cache(server.url) as cache:
            cache.put({b"a": ONE})

    asyncio.run(main())
    with server.client() as client:
        assert client.get(b"a") == pack(b"a", ONE)


def test_a_caller_that_goes_away_does_not_cost_connections(server: RedisServer) -> None:
    async def main() -> None:
        async with redis_cache(server.url) as cache:
            assert await cache.get([b"a"], SIZE) == [None]
            with server.client() as client:
                before = client.info("stats")["total_connections_received"]
            for _ in range(50):
                lookup = asyncio.create_task(cache.get([b"a"], SIZE))
                await asyncio.sleep(0)
                lookup.cancel()
                await asyncio.gather(lookup, return_exceptions=True)
            assert await cache.get([b"a"], SIZE) == [None]
            with server.client() as client:
                after = client.info("stats")["total_connections_received"]
            assert after - before <= 6  # the pool's four, and this client's own

    asyncio.run(main())
