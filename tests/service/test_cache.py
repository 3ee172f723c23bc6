"""The cache without Redis: what a key tells apart, what a value must be, what is kept in the process."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache import Cache
from service.caching.codec import is_result, pack, unpack
from service.caching.keys import Namespace, tile_hash
from service.caching.memory_store import ENTRY_OVERHEAD_BYTES, MemoryStore
from service.engine import arithmetic
from tests.service.fake_engine import FakeEngine


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
        Namespace("a" * 64, "cpu:kernels:fp32", 1),
        Namespace("a" * 63 + "b", "cpu:kernels:fp32", 1),
        Namespace("a" * 64, "cuda:kernels:fp32", 1),
        Namespace("a" * 64, "cpu:onnxruntime:fp32", 1),
        Namespace("a" * 64, "cpu:kernels:fp16", 1),
        Namespace("a" * 64, "cpu:kernels:fp32", 2),
    ]
    keys = {name.key(tile, output) for name in names for output in ("mean", "cls")}
    assert len(keys) == 12
    assert all(key.startswith(b"landmoe:aaaaaaaaaaaa:") for key in keys)


@given(st.binary(max_size=40), st.binary(max_size=600))
def test_what_is_packed_comes_back_under_its_key_only(key: bytes, payload: bytes) -> None:
    value = pack(key, payload)
    assert unpack(key, value) == payload
    assert unpack(key + b"x", value) is None


@given(st.binary(max_size=300), st.data())
def test_a_value_with_a_changed_byte_or_length_is_not_taken(payload: bytes, data: st.DataObject) -> None:
    value = pack(b"key", payload)
    place = data.draw(st.integers(0, len(value) - 1))
    damaged = bytearray(value)
    damaged[place] ^= data.draw(st.integers(1, 255))
    assert unpack(b"key", bytes(damaged)) is None
    assert unpack(b"key", value[:place]) is None
    assert unpack(b"key", value + b"\0") is None


@given(st.one_of(st.binary(max_size=100), st.text(max_size=20), st.none(), st.integers()))
def test_values_of_somebody_else_are_not_taken(value: object) -> None:
    assert unpack(b"key", value) is None


@pytest.mark.parametrize(
    ("values", "size", "whole"),
    [
        ([1.0, 2.0], 8, True),
        ([1.0, 2.0], 4, False),
        ([1.0], 8, False),
        ([1.0, np.nan], 8, False),
        ([np.inf, 1.0], 8, False),
    ],
)
def test_a_result_has_its_size_and_is_finite(values: list[float], size: int, whole: bool) -> None:
    assert is_result(np.asarray(values, "<f4").tobytes(), size) is whole


def test_the_least_recently_used_goes_first() -> None:
    store = MemoryStore(3 * (1 + 10 + ENTRY_OVERHEAD_BYTES))
    store.put({b"a": b"0" * 10, b"b": b"1" * 10, b"c": b"2" * 10})
    assert store.get([b"a"]) == [b"0" * 10]
    store.put({b"d": b"3" * 10})
    assert store.get([b"a", b"b", b"c", b"d"]) == [b"0" * 10, None, b"2" * 10, b"3" * 10]
    store.put({b"e": b"4" * 5000})  # alone larger than the store
    assert store.get([b"e", b"a"]) == [None, b"0" * 10]
    store.clear()
    assert store.get([b"a"]) == [None]


def test_a_value_that_grows_too_large_takes_the_old_one_with_it() -> None:
    store = MemoryStore(1000)
    store.put({b"a": b"old"})
    store.put({b"a": b"new" * 1000})
    assert store.get([b"a"]) == [None]


def test_no_bytes_keep_nothing() -> None:
    async def main() -> None:
        cache = Cache(MemoryStore(0))
        cache.put({b"a": b"\0" * 4})
        assert await cache.get([b"a"], 4) == [None]
        assert cache.redis_state == "off"
        await cache.close()

    asyncio.run(main())


@given(st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2500)), max_size=60))
def test_the_bytes_kept_never_exceed_the_limit_and_values_stay_true(puts: list[tuple[bytes, bytes]]) -> None:
    limit = 2_000
    store = MemoryStore(limit)
    latest: dict[bytes, bytes] = {}
    for key, value in puts:
        store.put({key: value})
        latest[key] = value
        fits = len(key) + len(value) + ENTRY_OVERHEAD_BYTES <= limit
        assert store.get([key]) == [value if fits else None]
    kept = {k: v for k in latest if (v := store.get([k])[0]) is not None}
    assert sum(len(k) + len(v) + ENTRY_OVERHEAD_BYTES for k, v in kept.items()) <= limit
    assert all(latest[k] == v for k, v in kept.items())


def test_results_of_other_kernels_have_other_keys() -> None:
    """Replicas on CPUs of two kinds may share a Redis."""
    engines = [FakeEngine() for _ in range(3)]
    engines[1].runtime, engines[1].kernels = "kernels", "fp32"
    engines[2].runtime, engines[2].kernels = "kernels", "avx2"
    assert [arithmetic(engine) for engine in engines] == [
        f"{engines[0].provider}:fake:fp32",
        f"{engines[0].provider}:kernels-fp32:fp32",
        f"{engines[0].provider}:kernels-avx2:fp32",
    ]
