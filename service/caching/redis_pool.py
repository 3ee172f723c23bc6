"""Connections to Redis."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def make_pool(
    url: str, *, connect_timeout_s: float, timeout_s: float, max_connections: int
) -> BlockingConnectionPool:
    """A pool that connects when it is asked for a connection.

    Args:
        url: redis://, rediss:// or unix://, checked by `redis_url.check`.
        connect_timeout_s: for a connection.
        timeout_s: for an answer, and for a connection that others use.
        max_connections: at most.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_connect_timeout=connect_timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),  # a result is computed sooner than a server comes back
        protocol=2,  # nothing of RESP3 is needed; its handshake is one more round trip
    )
    if issubclass(pool.connection_class, SSLConnection):
        pool.connection_class = _sharing(pool)
    return pool


def _sharing(pool: BlockingConnectionPool) -> type[SSLConnection]:
    """Connections with one TLS context, made here.

    Each would make its own when it connects: the system's certificates hold the event loop for 40 ms,
    which is most of the time that a connection has.
    """
    context = SSLConnection(**pool.connection_kwargs).ssl_context
    with suppress(OSError, ValueError):  # a file of certificates that is not there: each connection says so
        context.get()

    class Sharing(SSLConnection):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.ssl_context = context

    return Sharing
