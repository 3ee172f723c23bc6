"""Reads streams, good and damaged, and all layouts with another build of the reader of pixels.

A test calls it: python -m tests.service.rasters.damaged_streams LIBRARY
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from service.rasters import native_pixels
from tests.service.rasters.streams import PACKERS, damaged, some_bytes, some_layout, strips

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
    for _ in range(200):
        assert native_pixels.read(*some_layout(rng)) is not None
    print("600 times streams were read,", good, "as they were")
