"""Reads streams, good and damaged, and all layouts with another build of the reader of pixels.

A test calls it: python -m tests.service.rasters.damaged_streams LIBRARY
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from service.rasters import native_pixels
from service.rasters.plain_tiff import DEFLATE
from tests.service.rasters.streams import PACKERS, damaged, some_bytes, some_layout, strips
from tests.service.rasters.written_deflate import Token, Writer, plain, with_codes_of_all_lengths

if __name__ == "__main__":
    native_pixels.LIBRARY = Path(sys.argv[1])
    rng = random.Random(0)
    good = 0
    for number in range(600):
        rows, compression = rng.choice((1, 7, 300, 900)), rng.choice(list(PACKERS))
        data = [some_bytes(rng, rows) for _ in range(rng.randint(1, 6))]
        packed = [PACKERS[compression](rng, each) for each in data]
        if number % 4:
            packed[0] = damaged(rng, packed[0])
        content, tiff = strips(packed, [rows] * len(data), compression)
        pixels = native_pixels.read(content, tiff)
        good += pixels is not None and pixels.tobytes() == b"".join(data)
    assert good >= 150
    for _ in range(50):
        stream, whole = with_codes_of_all_lengths(rng)
        content, tiff = strips([stream, stream], [len(whole)] * 2, DEFLATE)
        pixels = native_pixels.read(content, tiff)
        assert pixels is not None
        assert pixels.tobytes() == whole * 2
        native_pixels.read(*strips([damaged(rng, stream), stream], [len(whole)] * 2, DEFLATE))
    for number in range(200):  # steps of many bits, and a match in the last ones of the file
        writer = Writer()
        tokens: list[Token] = [*[97] * (2100 + number // 8), *[(3, 2100)] * (2 + number % 8), (3, 1)]
        writer.dynamic(tokens, {256: 1, 257: 2, 97: 3, 98: 3}, {22: 1, 0: 2, 1: 2}, last=True)
        whole = plain(tokens)
        pixels = native_pixels.read(*strips([writer.stream(whole)], [len(whole)], DEFLATE))
        assert pixels is not None
        assert pixels.tobytes() == whole
    for _ in range(200):
        assert native_pixels.read(*some_layout(rng)) is not None
    print("600 times streams were read,", good, "as they were")
