"""Compressed streams in every form, and plain TIFFs of one byte a pixel that are made of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

from service.rasters import native_pixels
from service.rasters.plain_tiff import DEFLATE, HORIZONTAL, LZW, NONE, PlainTiff

_DTYPES = ("u1", "u2", "u2", "u2", "i4", "f8")
_STRATEGIES = (
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
)


def some_bytes(rng: random.Random, size: int) -> bytes:
    """Noise, repetitions of all distances, or both."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return bytes(min(255, int(rng.expovariate(0.3))) for _ in range(size))
    made = bytearray(rng.randbytes(rng.randint(1, 40)))
    while len(made) < size:
        if rng.random() < 0.3:
            made += rng.randbytes(rng.randint(1, 8))
        start = rng.randrange(len(made))
        length = rng.choice((1, 3, 4, 8, 17, 258, 700))
        for at in range(start, start + length):
            made.append(made[at])
    return bytes(made[:size])


def deflated(rng: random.Random, data: bytes) -> bytes:
    """In any way that zlib has, in several blocks at times."""
    level, strategy = rng.randint(0, 9), rng.choice(_STRATEGIES)
    packer = zlib.compressobj(level, zlib.DEFLATED, rng.randint(9, 15), rng.randint(1, 9), strategy)
    pieces, at = [], 0
    while at < len(data):
        step = rng.choice((len(data), 1 + len(data) // 3))
        pieces.append(packer.compress(data[at : at + step]))
        at += step
        if rng.random() < 0.3:
            pieces.append(packer.flush(rng.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH))))
    return b"".join([*pieces, packer.flush()])


def lzw(data: bytes, *, clear_at: int = 4094) -> bytes:
    """As TIFF 6.0, section 13 says; with fewer strings at a time, down to none, if `clear_at` is lower."""
    bits, count = 0, 0

    def put(code: int, width: int) -> None:
        nonlocal bits, count
        bits, count = bits << width | code, count + width

    def fresh() -> dict[bytes, int]:
        return {bytes([value]): value for value in range(256)}

    table, made, width, string = fresh(), 258, 9, b""
    put(256, 9)
    for value in data:
        longer = string + bytes([value])
        if longer in table:
            string = longer
            continue
        put(table[string], width)
        table[longer] = made
        made += 1
        if made > (1 << width) - 1:
            width += 1
        string = bytes([value])
        if made >= clear_at:
            put(256, width)
            table, made, width = fresh(), 258, 9
    if string:
        put(table[string], width)
        made += 1
        if made > (1 << width) - 1:
            width += 1
    put(257, width)
    padding = -count % 8
    return (bits << padding).to_bytes((count + padding) // 8, "big")


def strips(streams: Sequence[bytes], sizes: Sequence[int], compression: int) -> tuple[bytes, PlainTiff]:
    """A file of strips of one pixel a row: all of as many rows, but for the last, which may have fewer."""
    content, offsets = b"II*\0\0\0\0\0", []
    for stream in streams:
        offsets.append(len(content))
        content += stream
    lengths = tuple(map(len, streams))
    tiff = PlainTiff(
        *("<", 1, sum(sizes), 1, "u1", compression, 1, False, False, sizes[0], 1),
        *(tuple(offsets), lengths, None, None, ("<", None, None, None), None, None, None),
    )
    return content, tiff


def unpacked(streams: list[bytes], sizes: list[int], compression: int) -> bytes | None:
    """What the library makes of streams side by side."""
    content, tiff = strips(streams, sizes, compression)
    pixels = native_pixels.read(content, tiff)
    return None if pixels is None else pixels.tobytes()


def inflated(stream: bytes, size: int) -> bytes | None:
    """What zlib makes of a stream that is whole and has the size."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(stream, size + 1)
    except zlib.error:
        return None
    return data if len(data) == size and unpacker.eof and not unpacker.unused_data else None


def some_layout(rng: random.Random) -> tuple[bytes, PlainTiff]:
    """Noise in uncompressed blocks of any layout; the last one ends where the file does."""
    order, dtype, apart, tiled = rng.choice("<>"), rng.choice(_DTYPES), rng.random() < 0.3, rng.random() < 0.4
    width, height, bands = rng.randint(1, 50), rng.randint(1, 20), rng.randint(1, 20)
    down, across = (16, rng.choice((16, 32))) if tiled else (rng.randint(1, height), width)
    rows = [down] * -(-height // down)
    if not tiled:
        rows[-1] = height - down * (len(rows) - 1)
    columns, planes = -(-width // across), bands if apart else 1
    pixel = int(dtype[1]) * (1 if apart else bands)
    sizes = [count * across * pixel for count in rows for _ in range(columns)] * planes
    offsets = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    tiff = PlainTiff(
        *(order, width, height, bands, dtype, NONE, rng.choice((1, HORIZONTAL)), apart, tiled, down, across),
        *(tuple(offsets), tuple(sizes), None, None, (order, None, None, None), None, None, None),
    )
    return b"II*\0\0\0\0\0" + rng.randbytes(sum(sizes)), tiff


def damaged(rng: random.Random, stream: bytes) -> bytes:
    """With some bits turned, or cut off."""
    made = bytearray(stream)
    for _ in range(rng.choice((1, 1, 2, 8))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made[: rng.randint(1, len(made))]) if rng.random() < 0.2 else bytes(made)


PACKERS: dict[int, Callable[[random.Random, bytes], bytes]] = {
    DEFLATE: deflated,
    LZW: lambda rng, data: lzw(data, clear_at=rng.choice((259, 300, 512, 1024, 4094))),
}
