"""Results kept for tiles that come again: a store inside the process, and Redis behind it where it is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from service.caching.cache_metrics import LOOKUPS
from service.caching.codec import is_result, pack, unpack
from service.caching.keys import Namespace as Namespace
from service.caching.keys import tile_hash as tile_hash
from service.caching.memory_store import MemoryStore
from service.caching.redis_store import RedisStore
from service.settings import Settings


class Cache:
    """Two levels. A lookup never fails: what cannot be had, or is damaged, is a miss.

    Args:
        memory: asked first; filled with what Redis has.
        redis: asked for the rest; None if there is none.
    """

    def __init__(self, memory: MemoryStore, redis: RedisStore | None = None) -> None:
        self._memory = memory
        self._redis = redis

    async def start(self) -> None:
        """Begins to use Redis, whether it is there or not."""
        if self._redis is not None:
            await self._redis.start()

    @property
    def redis_state(self) -> str:
        """How Redis does: off, ok, unavailable or refuses-writes."""
        return "off" if self._redis is None else self._redis.state

    async def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None]:
        """Results, None for each that is not there.

        Args:
            keys: of `Namespace`.
            size: bytes of such a result: raw little-endian float32.
        """
        found = self._memory.get(keys)
        hits = sum(value is not None for value in found)
        LOOKUPS["memory", "hit"].inc(hits)
        LOOKUPS["memory", "miss"].inc(len(keys) - hits)
        return await self._rest(keys, found, lambda payload: is_result(payload, size), "redis")

    async def get_aliases(
        self, keys: Sequence[bytes], is_whole: Callable[[bytes], bool]
    ) -> list[bytes | None]:
        """What `put` has kept under keys of aliases, None for each that is not there or not whole."""
        found = await self._rest(keys, self._memory.get(keys), is_whole, None)
        hits = sum(value is not None for value in found)
        LOOKUPS["alias", "hit"].inc(hits)
        LOOKUPS["alias", "miss"].inc(len(keys) - hits)
        return found

    def get_answer(self, key: bytes) -> bytes | None:
        """A whole answer that `put_answer` has kept; one that is there counts as its tile's lookups."""
        (found,) = self._memory.get([key])
        if found is not None:
            LOOKUPS["alias", "hit"].inc()
            LOOKUPS["memory", "hit"].inc()
        return found

    def put_answer(self, key: bytes, answer: bytes) -> None:
        """Keeps the whole answer to a request for one tile, in this process only."""
        self._memory.put({key: answer})

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keeps values; returns at once."""
        self._memory.put(entries)
        if self._redis is not None:
            self._redis.put({key: pack(key, value) for key, value in entries.items()})

    async def close(self) -> None:
        """Writes what is to be written, if that is quick, and lets go of connections."""
        if self._redis is not None:
            await self._redis.close()
        self._memory.clear()

    async def _rest(
        self,
        keys: Sequence[bytes],
        found: list[bytes | None],
        is_whole: Callable[[bytes], bool],
        level: str | None,
    ) -> list[bytes | None]:
        """Fills what is missing from Redis; counts it as lookups of a level if one is named."""
        missing = [i for i, value in enumerate(found) if value is None]
        if self._redis is None or not missing:
            return found
        answer = await self._redis.get([keys[i] for i in missing])
        counts = dict.fromkeys(("hit", "miss", "damaged", "unavailable"), 0)
        fresh: dict[bytes, bytes] = {}
        for i, value in zip(missing, answer or [None] * len(missing), strict=True):
            payload = None if value is None else unpack(keys[i], value)
            if payload is not None and is_whole(payload):
                found[i] = fresh[keys[i]] = payload
                counts["hit"] += 1
            else:
                counts["damaged" if value is not None else "unavailable" if answer is None else "miss"] += 1
        self._memory.put(fresh)
        # While Redis was asked, another request may have put what this one misses.
        for i in missing:
            if found[i] is None:
                found[i] = self._memory.get([keys[i]])[0]
        if level is None:
            LOOKUPS["redis", "damaged"].inc(counts["damaged"])
        else:
            for result, count in counts.items():
                LOOKUPS[level, result].inc(count)
        return found


def make_cache(settings: Settings) -> Cache:
    """The cache that the settings ask for."""
    memory = MemoryStore(settings.cache_bytes)
    if settings.redis_url is None:
        return Cache(memory)
    return Cache(
        memory,
        RedisStore(
            settings.redis_url,
            ttl_s=settings.redis_ttl_s,
            connect_timeout_s=settings.redis_connect_timeout_ms / 1000,
            timeout_s=settings.redis_timeout_ms / 1000,
            max_connections=settings.redis_max_connections,
            max_queued_bytes=int(settings.redis_write_queue_mb * 1_000_000),
        ),
    )
