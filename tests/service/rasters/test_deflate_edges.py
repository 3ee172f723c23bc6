"""Streams that come to an edge of the native inflate: of its tables, its steps, the input, the output.

zlib says of each what it comes to.
"""

from __future__ import annotations

import random

import pytest

from service.rasters import native_pixels
from service.rasters.plain_tiff import DEFLATE
from tests.service.rasters.streams import deflated, inflated, some_bytes, unpacked
from tests.service.rasters.written_deflate import Token, Writer, plain, with_codes_of_all_lengths

pytestmark = pytest.mark.skipif(
    native_pixels._library(native_pixels.LIBRARY) is None, reason="installed without a C compiler"
)

BYTES = list(range(97, 107))
LITERALS = dict.fromkeys(BYTES, 5)
DISTANCES = {symbol: 4 if symbol < 2 else 5 for symbol in range(30)}


def read(stream: bytes, data: bytes) -> bytes | None:
    """Beside three others, so that it is done in turn with them; the file ends where the stream does."""
    beside = [deflated(random.Random(i), some_bytes(random.Random(i), max(1, len(data)))) for i in range(3)]
    alone = unpacked([stream], [len(data)], DEFLATE)
    assert inflated(stream, len(data)) == alone or alone is None
    if data:
        together = unpacked([*beside, stream], [len(data)] * 4, DEFLATE)
        assert (together is None) == (alone is None)
        assert together is None or together[3 * len(data) :] == alone
    return alone


def both_codes(tokens: list[Token], symbols: dict[int, int], distances: dict[int, int]) -> None:
    """With fixed codes and with these."""
    data = plain(tokens)
    for dynamic in (False, True):
        writer = Writer()
        if dynamic:
            writer.dynamic(tokens, symbols, distances, last=True)
        else:
            writer.fixed(tokens, last=True)
        assert read(writer.stream(data), data) == data


def some_tokens(rng: random.Random, number: int, lengths: list[int], far: int) -> list[Token]:
    return [
        *rng.choices(BYTES, k=far),
        *(
            rng.choice(BYTES) if rng.random() < 0.5 else (rng.choice(lengths), rng.randint(1, far))
            for _ in range(number)
        ),
    ]


@pytest.mark.parametrize("distance", [*range(1, 18), 31, 32, 33])
@pytest.mark.parametrize("length", [3, 4, 6, 7, 8, 9, 10, 11, 16, 17, 257, 258])
def test_a_match_of_any_length_and_distance(length: int, distance: int) -> None:
    """In the midst of others, where steps are taken, and at the end, where each code is looked at alone."""
    tokens: list[Token] = [*(BYTES * 4)[:distance], (length, distance), *BYTES * 5, (length, distance)]
    short = {257 + i: 6 for i in range(8)} | {257 + i: 6 for i in range(8, 29)}
    both_codes(tokens, full(LITERALS | {256: 5} | short), DISTANCES)


def full(lengths: dict[int, int]) -> dict[int, int]:
    """With more codes of symbols that do not come, so that the set is complete."""
    left = (1 << 15) - sum(1 << 15 - length for length in lengths.values())
    made, free = dict(lengths), (symbol for symbol in range(256) if symbol not in lengths)
    for length in range(1, 16):
        if left & 1 << 15 - length:
            made[next(free)] = length
    return made


def test_codes_of_all_lengths() -> None:
    rng = random.Random(1)
    for _ in range(60):
        stream, data = with_codes_of_all_lengths(rng)
        assert read(stream, data) == data


@pytest.mark.parametrize("code", range(30))
@pytest.mark.parametrize("bits", [1, 8, 10, 11, 15])
def test_distances_with_all_their_bits(code: int, bits: int) -> None:
    """Thirteen extra bits and a code of more than eight are more than a step takes."""
    others = [i for i in range(30) if i != code][: max(bits, 1)]
    codes = dict(
        zip([*others[: bits - 1], code, *others[bits - 1 : bits]], [*range(1, bits + 1), bits], strict=True)
    )
    extra = max(0, code // 2 - 1)
    base = code + 1 if code < 4 else (2 + code % 2 << extra) + 1
    tokens: list[Token] = [BYTES[i % 7] for i in range(base + (1 << extra))]
    tokens += [(3, base), BYTES[0], (258, base + (1 << extra) - 1), (3, base), (4, base), (3, base)] * 9
    writer = Writer()
    writer.dynamic(tokens, full(LITERALS | {256: 12, 257: 3, 258: 11, 285: 4}), codes, last=True)
    data = plain(tokens)
    assert read(writer.stream(data), data) == data


def test_one_code_of_distances_or_none() -> None:
    tokens: list[Token] = [*BYTES * 9, *[(3, 1), 97] * 20]
    for distances in ({0: 1}, {}):
        writer = Writer()
        has = tokens if distances else tokens[:90]
        writer.dynamic(has, full(LITERALS | {256: 5, 257: 2}), distances, last=True)
        assert read(writer.stream(plain(has)), plain(has)) == plain(has)


@pytest.mark.parametrize("before", [0, 1, 60, 500])
def test_a_distance_beyond_the_beginning_is_refused(before: int) -> None:
    for length in (3, 7, 258):
        for far, good in ((before, True), (before + 1, False)):
            if not far:
                continue
            tokens: list[Token] = [BYTES[i % 10] for i in range(before)]
            writer = Writer()
            writer.fixed([*tokens, (length, far), *BYTES * 9], last=True)
            data = plain([*tokens, (length, far), *BYTES * 9]) if good else bytes(before + length + 90)
            assert read(writer.stream(data), data) == (data if good else None)


def test_no_match_reaches_into_the_stream_beside_it() -> None:
    """Streams are unpacked side by side, the first bytes of one behind the last of another."""
    whole, tokens = Writer(), [*BYTES * 30]
    whole.fixed(tokens, last=True)
    data = plain(tokens)
    reaches = Writer()
    reaches.fixed([(258, 1), *BYTES * 4, 97, 98], last=True)
    streams = [whole.stream(data), reaches.stream(data)]
    assert unpacked([streams[0]] * 2, [300] * 2, DEFLATE) == data * 2
    assert unpacked(streams, [300] * 2, DEFLATE) is None


def test_blocks_of_all_kinds_in_turn() -> None:
    rng = random.Random(4)
    for _ in range(40):
        writer, tokens = Writer(), list[Token]()
        number = rng.choice((1, 5, 15))
        for i in range(number):
            last = i == number - 1
            if rng.random() < 0.3:
                data = bytes(rng.choices(BYTES, k=rng.choice((0, 1, 200))))
                writer.stored(data, last=last)
                tokens += data
                continue
            more = some_tokens(rng, rng.choice((0, 1, 9, 300)), [3, 4, 9, 258], rng.randint(1, 40))
            if rng.random() < 0.5:
                writer.fixed(more, last=last)
            else:
                symbols = full(LITERALS | dict.fromkeys((256, 257, 258, 263, 285), rng.choice((4, 6, 11))))
                writer.dynamic(more, symbols, DISTANCES, last=last)
            tokens += more
        data = plain(tokens)
        if data:
            assert read(writer.stream(data), data) == data


@pytest.mark.parametrize("size", [40, 700])
def test_every_place_where_the_input_or_the_room_for_output_may_end(size: int) -> None:
    rng = random.Random(size)
    tokens = some_tokens(rng, size // 4, [3, 5, 17], 12)
    data = plain(tokens)
    writer = Writer()
    writer.dynamic(
        tokens,
        full(LITERALS | {256: 9, 257: 2, 259: 4, 268: 5}),
        DISTANCES,
        last=True,
    )
    stream = writer.stream(data)
    assert read(stream, data) == data
    for end in range(len(stream)):
        assert unpacked([stream[:end]], [len(data)], DEFLATE) is None
    for room in range(1, len(data)):
        assert unpacked([stream, stream], [room, room], DEFLATE) is None
