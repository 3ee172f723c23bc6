"""Connections with TLS, to a server that has none: what they cost before they fail."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from service.caching.redis_store import RedisStore


def _store(url: str) -> RedisStore:
    return RedisStore(
        url, ttl_s=10, connect_timeout_s=5, timeout_s=5, max_connections=8, max_queued_bytes=1000
    )


def test_certificates_are_read_once_and_not_while_requests_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take 40 ms, in which the event loop answers nobody, and a connection has 50."""
    made: list[ssl.SSLContext] = []
    used: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        made.append(make())
        return made[-1]

    async def open_connection(**options: object) -> None:
        context = options["ssl"]
        assert isinstance(context, ssl.SSLContext)
        used.append(context)
        raise ConnectionRefusedError

    async def main() -> None:
        store = _store("rediss://redis.example.org?ssl_check_hostname=false")
        assert len(made) == 1
        assert await asyncio.gather(*(store.get([b"a"]) for _ in range(8))) == [None] * 8
        await store.close()

    monkeypatch.setattr(ssl, "create_default_context", counted)
    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    asyncio.run(main())
    assert len(made) == 1
    assert len(used) > 1
    assert set(used) == set(made)
    assert not used[0].check_hostname  # what the URL says still holds


def test_certificates_that_are_not_there_fail_no_start() -> None:
    async def main() -> None:
        store = _store("rediss://127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem")
        assert await store.get([b"a"]) is None
        await store.close()

    asyncio.run(main())
