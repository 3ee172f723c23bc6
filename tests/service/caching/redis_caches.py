"""Caches whose second level is a Redis server, and what they have counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from service.cache import Cache
from service.caching.cache_metrics import LOOKUPS, REDIS_ERRORS, REDIS_WRITES
from service.caching.memory_store import MemoryStore
from service.caching.redis_store import RedisStore

SIZE = 8
ONE, TWO = (np.asarray(pair, "<f4").tobytes() for pair in ([1.0, 2.0], [3.0, 4.0]))


@asynccontextmanager
async def redis_cache(
    url: str, *, memory_bytes: int = 0, queue: int = 1_000_000, timeout_s: float = 10
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


def counts() -> dict[str, float]:
    """What the metrics say of lookups, writes and errors."""
    samples = {f"{level}-{result}": counter for (level, result), counter in LOOKUPS.items()}
    samples |= {f"write-{result}": counter for result, counter in REDIS_WRITES.items()}
    samples |= {f"error-{kind}": counter for kind, counter in REDIS_ERRORS.items()}
    return {name: counter._value.get() for name, counter in samples.items()}


def grown(before: dict[str, float]) -> dict[str, float]:
    """The counts that are others than before, by how much."""
    return {name: value - before[name] for name, value in counts().items() if value != before[name]}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (counters of the metrics tell nobody when they change)
            await asyncio.sleep(0.01)
