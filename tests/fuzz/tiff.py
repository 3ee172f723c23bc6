"""The structure of a TIFF as a mutation sees it: directories, entries, and where their bytes lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# TIFF 6.0 page 15; 13 is IFD, 16 to 18 are BigTIFF's 64-bit types.
TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_FORMATS = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a directory.

    `at` is where it begins in the file, `data` where its values begin (inside the entry, or elsewhere).
    """

    at: int
    tag: int
    kind: int
    count: int
    data: int

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return TYPE_SIZES.get(self.kind, 1) * self.count


@dataclass(frozen=True, slots=True)
class Layout:
    """What is found by following a file's first directory.

    `order` is that of struct; `entries_at` is where the number of entries stands, `next_at` where the offset
    of the next directory does.
    """

    order: str
    big: bool
    entries_at: int
    next_at: int
    entries: tuple[Entry, ...]

    @property
    def offset_format(self) -> str:
        """Of offsets and counts."""
        return self.order + ("Q" if self.big else "I")

    def pointer(self, entry: Entry) -> int:
        """Where the value or offset of an entry stands."""
        return entry.at + (12 if self.big else 8)

    def counter(self, entry: Entry) -> int:
        """Where the number of values of an entry stands."""
        return entry.at + 4


def layout(data: bytes | bytearray) -> Layout | None:
    """The first directory of a file; None if it cannot be followed."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return None
    try:
        (magic,) = struct.unpack_from(order + "H", data, 2)
        big = magic == 43
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (number,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        entries_at = at
        at += 8 if big else 2
        step, inline = (20, 8) if big else (12, 4)
        entries = []
        for index in range(min(number, 200)):
            here = at + index * step
            tag, kind, count, pointer = struct.unpack_from(order + ("HHQQ" if big else "HHII"), data, here)
            size = TYPE_SIZES.get(kind, 1) * count
            entries.append(
                Entry(here, tag, kind, count, here + (step - inline) if size <= inline else pointer)
            )
    except (struct.error, OverflowError):
        return None
    return Layout(order, big, entries_at, at + number * step, tuple(entries))


def write_value(data: bytearray, layout: Layout, entry: Entry, index: int, value: float) -> None:
    """Overwrites one value of an entry, wrapped into its type; nothing where it lies outside the file."""
    code = _FORMATS.get(entry.kind, "B")
    size = struct.calcsize(code)
    if code in "fd":
        packed = struct.pack(layout.order + "d", value)
        if code == "f":
            # Beyond float32's range: infinity, as a writer's cast gives.
            packed = struct.pack(layout.order + "f", value if abs(value) < 3e38 else float("inf"))
    else:
        whole = 0 if value != value or abs(value) == float("inf") else int(value)
        packed = (whole % (1 << (8 * size))).to_bytes(size, "little" if layout.order == "<" else "big")
    at = entry.data + index * size
    if 0 <= at <= len(data) - size:
        data[at : at + size] = packed
