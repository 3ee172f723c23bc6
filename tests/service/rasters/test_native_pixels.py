"""Streams unpacked in C: what zlib says of deflate, and what the specification says of LZW."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rasters import native_pixels, plain_pixels
from service.rasters.plain_tiff import DEFLATE, LZW, NONE
from tests.service.rasters.streams import (
    PACKERS,
    damaged,
    deflated,
    inflated,
    lzw,
    some_bytes,
    some_layout,
    strips,
    unpacked,
)

pytestmark = pytest.mark.skipif(
    native_pixels._library(native_pixels.LIBRARY) is None, reason="installed without a C compiler"
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 5000))
def test_streams_of_any_kind_side_by_side(seed: int, number: int, rows: int) -> None:
    rng = random.Random(seed)
    for compression, pack in PACKERS.items():
        data = [some_bytes(rng, rows) for _ in range(number - 1)]
        data.append(some_bytes(rng, rng.randint(1, rows)))
        if number == 1:
            data = [some_bytes(rng, rows)]
        packed = [pack(rng, each) for each in data]
        assert unpacked(packed, [len(each) for each in data], compression) == b"".join(data)


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 5, 300, 2500]))
def test_a_damaged_stream_is_what_zlib_makes_of_it_or_nothing(seed: int, size: int) -> None:
    rng = random.Random(seed)
    whole = [some_bytes(rng, size) for _ in range(3)]
    streams = [deflated(rng, data) for data in whole]
    at = rng.randrange(3)
    streams[at] = damaged(rng, streams[at])
    expected = inflated(streams[at], size)
    came = unpacked(streams, [size] * 3, DEFLATE)
    if came is not None:
        assert expected is not None
        assert came == b"".join([*whole[:at], expected, *whole[at + 1 :]])


def test_what_zlib_reads_of_any_length_is_not_refused() -> None:
    """Each length on its own, around the place where steps end and a careful look at each code begins."""
    rng = random.Random(1)
    for size in range(1, 700):
        data = some_bytes(rng, size)
        stream = zlib.compress(data, rng.randint(1, 9))
        assert unpacked([stream], [size], DEFLATE) == data
        assert unpacked([lzw(data)], [size], LZW) == data


@pytest.mark.parametrize("off", [-1, 1])
def test_a_stream_has_exactly_the_expected_bytes(off: int) -> None:
    data = bytes(range(200)) * 3
    assert unpacked([zlib.compress(data)], [len(data) + off], DEFLATE) is None
    assert unpacked([data], [len(data) + off], NONE) is None
    # As libtiff: a stream that goes on is not looked at, but a string must not be cut.
    assert unpacked([lzw(data)], [len(data) + 1], LZW) is None


def test_the_checksum_is_looked_at() -> None:
    """Of sizes around those in which it is summed."""
    rng = random.Random(2)
    for size in (1, 15, 16, 17, 31_999, 32_000, 32_001, 100_000):
        data = rng.randbytes(size)
        for content in (data, b"\xff" * size):
            stream = zlib.compress(content, 1)
            assert unpacked([stream], [size], DEFLATE) == content
            assert unpacked([stream[:-1] + bytes([stream[-1] ^ 1])], [size], DEFLATE) is None
            assert unpacked([stream[:-4]], [size], DEFLATE) is None
            assert unpacked([stream + b"\0"], [size], DEFLATE) is None


def test_many_blocks_with_nothing_in_them_are_refused() -> None:
    """They would keep the event loop busy: the tables of each are built before anything is unpacked."""

    def with_blocks(number: int) -> bytes:  # a header, empty blocks with fixed codes, "ab" in the last
        bits = "".join("0" + "10" + "0000000" for _ in range(number))
        bits += "1" + "10" + f"{0x30 + 97:08b}" + f"{0x30 + 98:08b}" + "0000000"
        packed = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
        return b"\x78\x9c" + packed + zlib.adler32(b"ab").to_bytes(4, "big")

    for number in (0, 1, 15, 16, 5000):
        assert inflated(with_blocks(number), 2) == b"ab"
        assert unpacked([with_blocks(number)], [2], DEFLATE) == (b"ab" if number < 16 else None)


def test_a_dictionary_or_another_method_is_refused() -> None:
    packer = zlib.compressobj(zdict=b"abc")
    assert unpacked([packer.compress(b"abcabc") + packer.flush()], [6], DEFLATE) is None
    raw = zlib.compressobj(wbits=-15)
    assert unpacked([raw.compress(b"abcabc") + raw.flush()], [6], DEFLATE) is None


def test_lzw_that_does_not_begin_with_a_clear_code_or_has_no_such_code_is_refused() -> None:
    def codes(*values: int) -> bytes:
        bits = "".join(f"{value:09b}" for value in values)
        return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")

    assert unpacked([codes(256, 65, 258, 257)], [3], LZW) == b"AAA"
    assert unpacked([codes(256, 256, 65, 66, 258, 256, 67, 257)], [5], LZW) == b"ABABC"
    assert unpacked([codes(65, 66, 257)], [2], LZW) is None
    assert unpacked([codes(256, 65, 259, 257)], [3], LZW) is None
    assert unpacked([codes(256, 258, 257)], [2], LZW) is None
    assert unpacked([codes(256, 257)], [2], LZW) is None
    assert unpacked([codes(256, 65, 257)], [2], LZW) is None
    assert unpacked([codes(256, 65)], [2], LZW) is None


def test_more_strings_than_codes_are_refused() -> None:
    rng = random.Random(3)
    data = rng.randbytes(9000)
    assert unpacked([lzw(data)], [9000], LZW) == data
    assert unpacked([lzw(data, clear_at=10_000)], [9000], LZW) is None


def test_a_block_beyond_the_file_is_refused() -> None:
    data = bytes(range(100))
    content, tiff = strips([data], [100], NONE)
    assert native_pixels.read(content, tiff) is not None
    assert native_pixels.read(content[:-1], tiff) is None
    assert native_pixels.read(memoryview(content), tiff) is not None


@given(st.integers(0, 2**32))
def test_samples_of_any_layout_are_where_numpy_puts_them(seed: int) -> None:
    content, tiff = some_layout(random.Random(seed))
    found = native_pixels.read(content, tiff)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_pixels, "usable", lambda tiff: False)
        expected = plain_pixels.read(content, tiff)
    assert found is not None
    assert expected is not None
    assert np.array_equal(found.view(np.uint8), expected.copy().view(np.uint8))


def test_without_the_library_numpy_reads_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = [bytes(range(250)), bytes(50)]
    content, tiff = strips([zlib.compress(each) for each in data], [250, 50], DEFLATE)
    expected = plain_pixels.read(content, tiff)
    monkeypatch.setattr(native_pixels, "LIBRARY", tmp_path / "missing.so")
    assert not native_pixels.usable(tiff)
    found = plain_pixels.read(content, tiff)
    assert expected is not None
    assert found is not None
    assert np.array_equal(found, expected)
    packed, compressed = strips([lzw(each) for each in data], [250, 50], LZW)
    assert plain_pixels.read(packed, compressed) is None
