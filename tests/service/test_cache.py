"""The cache: what a key tells apart, and what the store keeps."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.cache import ENTRY_OVERHEAD_BYTES, MemoryCache, Namespace, tile_hash


def test_keys_differ_in_everything_that_changes_a_result() -> None:
    dn = np.arange(7 * 1600, dtype=np.uint16).reshape(7, 40, 40)
    encoding = np.zeros((4, 2), np.float32)
    other_dn, other_encoding = dn.copy(), encoding.copy()
    other_dn[6, 39, 39] += 1
    other_encoding[3, 1] = 1
    hashes = {tile_hash(dn, encoding), tile_hash(other_dn, encoding), tile_hash(dn, other_encoding)}
    assert len(hashes) == 3
    assert tile_hash(dn, encoding) == tile_hash(np.asfortranarray(dn), encoding.copy())
    tile = tile_hash(dn, encoding)
    names = [
        Namespace("a", "cpu", "fp32", 1),
        Namespace("b", "cpu", "fp32", 1),
        Namespace("a", "cuda", "fp32", 1),
        Namespace("a", "cpu", "fp16", 1),
        Namespace("a", "cpu", "fp32", 2),
    ]
    keys = {name.key(tile, output) for name in names for output in ("mean", "cls")}
    assert len(keys) == 10


def test_the_least_recently_used_goes_first() -> None:
    async def main() -> None:
        cache = MemoryCache(3 * (1 + 10 + ENTRY_OVERHEAD_BYTES))
        cache.put({b"a": b"0" * 10, b"b": b"1" * 10, b"c": b"2" * 10})
        assert await cache.get([b"a"]) == [b"0" * 10]
        cache.put({b"d": b"3" * 10})
        assert await cache.get([b"a", b"b", b"c", b"d"]) == [b"0" * 10, None, b"2" * 10, b"3" * 10]
        cache.put({b"e": b"4" * 5000})  # alone larger than the cache
        assert await cache.get([b"e", b"a"]) == [None, b"0" * 10]
        await cache.close()
        assert await cache.get([b"a"]) == [None]

    asyncio.run(main())


def test_no_bytes_keep_nothing() -> None:
    async def main() -> None:
        cache = MemoryCache(0)
        cache.put({b"a": b""})
        assert await cache.get([b"a"]) == [None]

    asyncio.run(main())


@given(st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=600)), max_size=60))
def test_the_bytes_kept_never_exceed_the_limit_and_values_stay_true(puts: list[tuple[bytes, bytes]]) -> None:
    async def main() -> None:
        limit = 2_000
        cache = MemoryCache(limit)
        latest: dict[bytes, bytes] = {}
        for key, value in puts:
            cache.put({key: value})
            latest[key] = value
            [found] = await cache.get([key])
            assert found == value
        kept = {k: v for k in latest if (v := (await cache.get([k]))[0]) is not None}
        assert sum(len(k) + len(v) + ENTRY_OVERHEAD_BYTES for k, v in kept.items()) <= limit
        assert all(latest[k] == v for k, v in kept.items())

    asyncio.run(main())
