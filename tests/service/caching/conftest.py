"""A real Redis server for the tests of what uses one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def _started() -> Iterator[RedisServer]:
    with redis_server() as server:
        server.start()
        yield server


@pytest.fixture
def server(_started: RedisServer) -> RedisServer:
    """Empty."""
    with _started.client() as client:
        client.flushall()
    return _started
