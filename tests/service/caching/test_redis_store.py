"""The second level of the cache against a real Redis server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from service.cache import Cache
from service.caching.cache_metrics import LOOKUPS, REDIS_ERRORS, REDIS_WRITES
from service.caching.codec import pack
from service.caching.memory_store import MemoryStore
from service.caching.redis_store import RedisStore
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.server
SIZE = 8
ONE, TWO = (np.asarray(pair, "<f4").tobytes() for pair in ([1.0, 2.0], [3.0, 4.0]))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        server.start()
        yield server


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


@asynccontextmanager
async def _cache(
    url: str, *, memory_bytes: int = 0, queue: int = 1_000_000, timeout_s: float = 1
) -> AsyncIterator[Cache]:
    store = RedisStore(
        url,
        ttl_s=100,
        connect_timeout_s=timeout_s,  # the machine may be busy with other things
        timeout_s=timeout_s,
        max_connections=4,
        max_queued_bytes=queue,
    )
    cache = Cache(MemoryStore(memory_bytes), store)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.close()


def _counts() -> dict[str, float]:
    samples = {f"{level}-{result}": counter for (level, result), counter in LOOKUPS.items()}
    samples |= {f"write-{result}": counter for result, counter in REDIS_WRITES.items()}
    samples |= {f"error-{kind}": counter for kind, counter in REDIS_ERRORS.items()}
    return {name: counter._value.get() for name, counter in samples.items()}


def _grown(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in _counts().items() if value != before[name]}


def _present(server: RedisServer, key: bytes) -> bool:
    with server.client() as client:
        return bool(client.exists(key))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (counters of the metrics tell nobody when they change)
            await asyncio.sleep(0.01)


def test_what_one_process_keeps_another_finds_until_it_expires(server: RedisServer) -> None:
    async def main() -> None:
        before = _counts()
        async with _cache(server.url) as one, _cache(server.url) as two:
            one.put({b"a": ONE, b"b": TWO})
            await _until(lambda: _grown(before).get("write-ok") == 2)
            assert await two.get([b"a", b"x", b"b"], SIZE) == [ONE, None, TWO]
            assert one.redis_state == two.redis_state == "ok"
        assert _grown(before) == {"write-ok": 2, "memory-miss": 3, "redis-hit": 2, "redis-miss": 1}
        with server.client() as client:
            assert 0 < client.ttl(b"a") <= 100

    asyncio.run(main())


def test_what_redis_had_is_kept_in_the_process(server: RedisServer) -> None:
    async def main() -> None:
        with server.client() as client:
            client.set(b"a", pack(b"a", ONE))
        async with _cache(server.url, memory_bytes=10_000) as cache:
            assert await cache.get([b"a"], SIZE) == [ONE]
            before = _counts()
            assert await cache.get([b"a"], SIZE) == [ONE]
            assert _grown(before) == {"memory-hit": 1}

    asyncio.run(main())


def test_many_tiles_in_one_call(server: RedisServer) -> None:
    async def main() -> None:
        entries = {f"{i}".encode(): np.asarray([i, i], "<f4").tobytes() for i in range(1000)}
        before = _counts()
        async with _cache(server.url) as cache:
            cache.put(entries)
            await _until(lambda: _grown(before).get("write-ok") == 1000)
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
        before = _counts()
        async with _cache(server.url) as cache:
            assert await cache.get([b"a"], SIZE) == [None]
            assert _grown(before) == {"memory-miss": 1, "redis-damaged": 1}
            cache.put({b"a": ONE})
            await _until(lambda: _grown(before).get("write-ok") == 1)
            assert await cache.get([b"a"], SIZE) == [ONE]

    asyncio.run(main())


def test_a_value_of_another_type_is_a_miss_and_replaced(server: RedisServer) -> None:
    async def main() -> None:
        with server.client() as client:
            client.rpush(b"a", "a list")
            client.hset(b"b", "a", "hash")
            client.set(b"c", pack(b"c", TWO))
        before = _counts()
        async with _cache(server.url) as cache:
            assert await cache.get([b"a", b"b", b"c"], SIZE) == [None, None, TWO]
            cache.put({b"a": ONE, b"b": ONE})
            await _until(lambda: _grown(before).get("write-ok") == 2)
            assert await cache.get([b"a", b"b", b"c"], SIZE) == [ONE, ONE, TWO]
            assert cache.redis_state == "ok"

    asyncio.run(main())


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
def test_a_server_that_never_answers_holds_nobody_up_for_long(drips: bool) -> None:
    """It accepts connections and says nothing, or a byte now and then: the worst that a network can do."""

    async def main() -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone = asyncio.create_task(reader.read())
            while not gone.done():
                if drips:
                    writer.write(b"+")
                await asyncio.wait([gone], timeout=0.02)
            writer.close()

        worst = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = worst.sockets[0].getsockname()[1]
        store = RedisStore(
            f"redis://127.0.0.1:{port}",
            ttl_s=10,
            connect_timeout_s=0.05,
            timeout_s=0.05,
            max_connections=4,
            max_queued_bytes=1000,
        )
        await store.start()
        started = time.monotonic()
        answers = await asyncio.gather(*(store.get([b"a"]) for _ in range(100)))
        assert answers == [None] * 100
        assert time.monotonic() - started < 5  # a hundred waits of 0.1 s one after another would be 10
        await _until(lambda: store.state == "unavailable")
        before = _counts()
        assert await store.get([b"a"]) is None
        store.put({b"a": b"0" * 100})
        await _until(lambda: _grown(before).get("write-dropped") == 1)
        await store.close()
        worst.close()
        await worst.wait_closed()

    asyncio.run(main())


def test_a_server_that_becomes_slow_is_left_alone_until_it_is_quick_again(server: RedisServer) -> None:
    async def main() -> None:
        delay_s = 0.0

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with suppress(ConnectionError):
                    while data := await reader.read(65536):
                        await asyncio.sleep(delay_s)
                        writer.write(data)
            finally:
                writer.close()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inside, outside = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(pump(reader, outside), pump(inside, writer))

        slow = await asyncio.start_server(forward, "127.0.0.1", 0)
        port = slow.sockets[0].getsockname()[1]
        async with _cache(f"redis://127.0.0.1:{port}", timeout_s=0.5) as cache:
            cache.put({b"a": ONE})
            await _until(lambda: _present(server, b"a"))
            delay_s = 3.0
            before = _counts()
            for _ in range(3):  # more than there are connections: some time out, some find none
                lookups = (cache.get([b"a"], SIZE) for _ in range(8))
                assert await asyncio.gather(*lookups) == [[None]] * 8
            assert cache.redis_state == "unavailable"
            assert _grown(before)["error-timeout"] >= 5
            assert _grown(before)["redis-unavailable"] == 24
            delay_s = 0.0
            await _until(lambda: cache.redis_state == "ok")
            assert await cache.get([b"a"], SIZE) == [ONE]
        slow.close()
        await slow.wait_closed()

    asyncio.run(main())


def test_a_server_of_another_kind_is_left_alone() -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = web.sockets[0].getsockname()[1]
        async with _cache(f"redis://127.0.0.1:{port}") as cache:
            await _until(lambda: cache.redis_state == "unavailable")
            assert await cache.get([b"a"], SIZE) == [None]
        web.close()
        await web.wait_closed()

    asyncio.run(main())


def test_writes_that_find_no_room_in_the_queue_are_dropped_and_counted(server: RedisServer) -> None:
    async def main() -> None:
        before = _counts()
        async with _cache(server.url, queue=500) as cache:
            started = time.monotonic()
            cache.put({f"{i}".encode(): b"0" * 100 for i in range(10_000)})
            assert time.monotonic() - started < 5
            await _until(lambda: _grown(before).get("write-ok", 0) > 0)
            grown = _grown(before)
        assert grown["write-ok"] <= 5
        assert grown["write-ok"] + grown["write-dropped"] == 10_000

    asyncio.run(main())


def test_what_is_queued_is_written_before_the_service_stops(server: RedisServer) -> None:
    async def main() -> None:
        async with _cache(server.url) as cache:
            cache.put({b"a": ONE})

    asyncio.run(main())
    with server.client() as client:
        assert client.get(b"a") == pack(b"a", ONE)


def test_a_caller_that_goes_away_does_not_cost_connections(server: RedisServer) -> None:
    async def main() -> None:
        async with _cache(server.url) as cache:
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


def test_a_wrong_password_is_an_outage_like_any_other(server: RedisServer) -> None:
    async def main() -> None:
        before = _counts()
        async with _cache(server.url.replace("//", "//somebody:wrong@")) as cache:
            await _until(lambda: cache.redis_state == "unavailable")
            assert await cache.get([b"a"], SIZE) == [None]
        assert _grown(before)["error-auth"] >= 1

    asyncio.run(main())
