"""Deflated streams written code by code (RFC 1951): what zlib's packer would never write, or not there."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence

Token = int | tuple[int, int]  # a byte, or a length and a distance

_END = 256
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
# RFC 1951, 3.2.5: (base, extra bits) of symbols from 257 on, and of distances.
_LENGTHS = [
    *((3 + i, 0) for i in range(8)),
    *(((4 + i % 4 << i // 4 - 1) + 3, i // 4 - 1) for i in range(8, 28)),
    (258, 0),
]
_DISTANCES = [
    *((1 + i, 0) for i in range(4)),
    *(((2 + i % 2 << i // 2 - 1) + 1, i // 2 - 1) for i in range(4, 30)),
]
FIXED = {i: 8 if i < 144 else 9 if i < 256 else 7 if i < 280 else 8 for i in range(288)}
FIXED_DISTANCES = dict.fromkeys(range(32), 5)


class Writer:
    """Blocks one after the other; `stream` adds what stands around them."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def number(self, value: int, bits: int) -> None:
        self._bits.append(f"{value:0{bits}b}"[::-1] if bits else "")

    def stored(self, data: bytes, *, last: bool = False) -> None:
        self.number(last, 3)
        self._bits.append("0" * (-sum(map(len, self._bits)) % 8))
        self.number(len(data), 16)
        self.number(len(data) ^ 0xFFFF, 16)
        for byte in data:
            self.number(byte, 8)

    def fixed(self, tokens: Sequence[Token], *, last: bool = False) -> None:
        self.number(last | 1 << 1, 3)
        self._tokens(tokens, FIXED, FIXED_DISTANCES)

    def dynamic(
        self,
        tokens: Sequence[Token],
        symbols: Mapping[int, int],
        distances: Mapping[int, int],
        *,
        last: bool = False,
    ) -> None:
        """With codes of these lengths, which are written as they are: four bits each."""
        self.number(last | 2 << 1, 3)
        self.number(286 - 257, 5)
        self.number(30 - 1, 5)
        self.number(len(_ORDER) - 4, 4)
        for length in _ORDER:
            self.number(4 if length < 16 else 0, 3)
        for length in (*(symbols.get(i, 0) for i in range(286)), *(distances.get(i, 0) for i in range(30))):
            self._bits.append(f"{length:04b}")
        self._tokens(tokens, symbols, distances)

    def stream(self, data: bytes) -> bytes:
        bits = "".join(self._bits)
        packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
        return b"\x78\x9c" + packed + zlib.adler32(data).to_bytes(4, "big")

    def _tokens(
        self, tokens: Sequence[Token], symbols: Mapping[int, int], distances: Mapping[int, int]
    ) -> None:
        symbol_codes, distance_codes = _codes(symbols), _codes(distances)
        for token in tokens:
            if isinstance(token, int):
                self._bits.append(symbol_codes[token])
                continue
            for value, bases, first, codes in (
                (token[0], _LENGTHS, 257, symbol_codes),
                (token[1], _DISTANCES, 0, distance_codes),
            ):
                index = max(i for i, (base, _) in enumerate(bases) if base <= value)
                base, extra = bases[index]
                self._bits.append(codes[first + index])
                self.number(value - base, extra)
        self._bits.append(symbol_codes[_END])


def with_codes_of_all_lengths(rng: random.Random) -> tuple[bytes, bytes]:
    """A stream, and what it comes to: codes of up to fifteen bits, which hardly leave bits for more."""
    literals = rng.sample(range(256), 10)
    used = [*literals, 256, 257, 258, 264, 265, 285]
    rng.shuffle(used)
    distances = rng.sample(range(18), 16)
    tokens: list[Token] = rng.choices(literals, k=600)
    for _ in range(rng.choice((5, 400))):
        base, extra = _DISTANCES[rng.choice(distances)]
        match = rng.choice((3, 4, 10, 11, 12, 258)), base + rng.randrange(1 << extra)
        tokens.extend([*[rng.choice(literals)] * rng.randint(0, 2), match])
    writer = Writer()
    writer.dynamic(tokens, _chain(used), _chain(distances), last=True)
    return writer.stream(plain(tokens)), plain(tokens)


def plain(tokens: Sequence[Token]) -> bytes:
    made = bytearray()
    for token in tokens:
        if isinstance(token, int):
            made.append(token)
        else:
            for _ in range(token[0]):
                made.append(made[-token[1]])
    return bytes(made)


def _chain(symbols: Sequence[int]) -> dict[int, int]:
    """Lengths of codes, complete: 1, 2, 3 and so on, of the last two the same; 16 symbols at most."""
    return {symbol: min(i + 1, len(symbols) - 1) for i, symbol in enumerate(symbols)}


def _codes(lengths: Mapping[int, int]) -> dict[int, str]:
    """RFC 1951, 3.2.2."""
    codes, code, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items() if length):
        code <<= length - before
        before = length
        codes[symbol] = f"{code:0{length}b}"
        code += 1
    return codes
