"""Servers that do not answer, are slow, of another kind or refuse the password hold nobody up."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from service.caching.redis_store import RedisStore
from tests.redis_server import RedisServer
from tests.service.caching.redis_caches import ONE, SIZE, counts, grown, redis_cache, until

pytestmark = pytest.mark.server


def _present(server: RedisServer, key: bytes) -> bool:
    with server.client() as client:
        return bool(client.exists(key))


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
        await until(lambda: store.state == "unavailable")
        before = counts()
        assert await store.get([b"a"]) is None
        store.put({b"a": b"0" * 100})
        await until(lambda: grown(before).get("write-dropped") == 1)
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
        async with redis_cache(f"redis://127.0.0.1:{port}", timeout_s=0.5) as cache:
            cache.put({b"a": ONE})
            await until(lambda: _present(server, b"a"))
            delay_s = 3.0
            before = counts()
            for _ in range(3):  # more than there are connections: some time out, some find none
                lookups = (cache.get([b"a"], SIZE) for _ in range(8))
                assert await asyncio.gather(*lookups) == [[None]] * 8
            assert cache.redis_state == "unavailable"
            assert grown(before)["error-timeout"] >= 5
            assert grown(before)["redis-unavailable"] == 24
            delay_s = 0.0
            await until(lambda: cache.redis_state == "ok")
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
        async with redis_cache(f"redis://127.0.0.1:{port}") as cache:
            await until(lambda: cache.redis_state == "unavailable")
            assert await cache.get([b"a"], SIZE) == [None]
        web.close()
        await web.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b":7\r\n", b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"], ids=["number", "more"])
def test_answers_to_something_else_are_an_outage(answer: bytes) -> None:
    """Of a proxy, or of a connection whose answers are out of step."""

    async def main() -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if line.upper().strip() == b"MGET":
                    writer.write(answer)
                elif line.upper().strip() in (b"CLIENT", b"SET"):
                    writer.write(b"+OK\r\n")
            writer.close()

        other = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        before = counts()
        async with redis_cache(f"redis://127.0.0.1:{port}") as cache:
            assert await cache.get([b"a"], SIZE) == [None]
            await until(lambda: cache.redis_state == "unavailable")
        assert grown(before)["error-other"] >= 5
        other.close()
        await other.wait_closed()

    asyncio.run(main())


def test_a_user_who_may_not_read_is_an_outage_though_writes_succeed(server: RedisServer) -> None:
    with server.client() as client:
        client.acl_setuser(
            "writer",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            commands=["+set", "+ping", "+client", "+select"],
        )

    async def main() -> None:
        async with redis_cache(server.url.replace("//", "//writer:secret@")) as cache:
            for number in range(10):
                cache.put({b"%d" % number: ONE})
                assert await cache.get([b"%d" % number], SIZE) == [None]
                await asyncio.sleep(0.02)
            await until(lambda: cache.redis_state == "unavailable")
            await asyncio.sleep(2)  # until it was tried again, twice
            assert cache.redis_state == "unavailable"

    try:
        asyncio.run(main())
    finally:
        with server.client() as client:
            client.acl_deluser("writer")


def test_a_wrong_password_is_an_outage_like_any_other(server: RedisServer) -> None:
    async def main() -> None:
        before = counts()
        async with redis_cache(server.url.replace("//", "//somebody:wrong@")) as cache:
            await until(lambda: cache.redis_state == "unavailable")
            assert await cache.get([b"a"], SIZE) == [None]
        assert grown(before)["error-auth"] >= 1

    asyncio.run(main())


def test_a_server_that_takes_writes_again_is_noticed_though_nothing_is_to_be_written(
    server: RedisServer,
) -> None:
    """What was full in the evening must not alert until the first new tile of the morning."""

    async def main() -> None:
        with server.client() as client:
            client.config_set("maxmemory", "1kb")  # less than it uses; by default nothing is evicted
            try:
                async with redis_cache(server.url) as cache:
                    cache.put({b"a": ONE})
                    await until(lambda: cache.redis_state == "refuses-writes")
                    before = counts()
                    client.config_set("maxmemory", "0")
                    await until(lambda: cache.redis_state == "ok")
                    assert not {name for name in grown(before) if name.startswith("write")}  # no results
            finally:
                client.config_set("maxmemory", "0")

    asyncio.run(main())
