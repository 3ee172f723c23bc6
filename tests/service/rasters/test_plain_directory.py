"""Directories of plain TIFFs, kept by what they say."""

from __future__ import annotations

import struct

import pytest

from service import sample
from service.rasters import plain_directory
from service.rasters.plain_directory import Directory, NotPlainError


def moved(data: bytes, by: int) -> bytes:
    """A file with its directory, and all that this points to but blocks, moved away from the blocks."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    made = bytearray(data[:at] + bytes(by) + data[at:])
    struct.pack_into("<I", made, 4, at + by)
    for entry in range(at + by + 2, at + by + 2 + 12 * count, 12):
        tag, kind, length, value = struct.unpack_from("<HHII", made, entry)
        if {2: 1, 3: 2, 4: 4, 5: 8, 12: 8}[kind] * length > 4:
            # The sample's packed blocks come first, then its directory, then the values.
            assert value > at
            struct.pack_into("<HHII", made, entry, tag, kind, length, value + by)
    return bytes(made)


def test_directories_that_differ_in_their_place_only_are_looked_up() -> None:
    plain_directory._entries_at.cache_clear()
    plain_directory._entries.cache_clear()
    files = [sample.make(seed) for seed in range(12)]  # packed, each to a size of its own
    assert len({struct.unpack_from("<I", data, 4) for data in files}) > 1
    found = {Directory(data).entries for data in files}
    assert len(found) == 1


@pytest.mark.parametrize("by", [2, 40])
def test_a_directory_says_the_same_wherever_it_lies(by: int) -> None:
    data = sample.make()
    here, there = Directory(data), Directory(moved(data, by))
    assert here.entries is there.entries
    assert here.shape == there.shape
    for tag, kind in ((33550, plain_directory.DOUBLE), (33922, plain_directory.DOUBLE)):
        length = {33550: 3, 33922: 6}[tag]
        assert here.numbers(tag, (kind,), length) == there.numbers(tag, (kind,), length)


def test_a_value_within_an_entry_makes_another_directory() -> None:
    data = bytearray(sample.make())
    (at,) = struct.unpack_from("<I", data, 4)
    before = Directory(bytes(data))
    for entry in range(at + 2, len(data) - 12, 12):
        if struct.unpack_from("<H", data, entry) == (256,):  # the width
            struct.pack_into("<H", data, entry + 8, 43)
            break
    after = Directory(bytes(data))
    assert before.entries is not after.entries
    assert (before.size(256), after.size(256)) == (41, 43)


def test_a_value_beyond_the_end_is_refused() -> None:
    data = sample.make()
    with pytest.raises(NotPlainError):
        Directory(data[:-1])
