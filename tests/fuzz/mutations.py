"""Structure-aware damage: what a TIFF says of itself is changed to what would hurt a trusting reader."""

from __future__ import annotations

import gzip
import io
import math
import random
import struct
import zipfile
from collections.abc import Callable, Sequence

from tests.fuzz.tiff import Entry, Layout, layout, write_value

_SIZES = (0, 1, 2, 7, 39, 40, 255, 256, 8_000, 65_535, 65_536, 1_000_003, 2**31 - 1, 2**31, 2**32 - 1)
_DOUBLES = (0.0, -0.0, -30.0, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 30.0, 1e9)
# Every scheme that libtiff or GDAL has a number for, and some that nobody has.
_COMPRESSIONS = (
    *range(10), 32766, 32771, 32773, 32809, 32895, 32908, 32909, 32946, 32947, 33003, 33005, 34661, 34663,
    34676, 34677, 34712, 34887, 34925, 50000, 50001, 50002, 52546, 65000, 65535,
)  # fmt: skip
_TAGS = (
    254, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 284, 306, 317, 318, 320, 322, 323,
    324, 325, 330, 332, 338, 339, 340, 347, 400, 512, 529, 530, 532, 33550, 33922, 34264, 34665, 34735, 34736,
    34737, 42112, 42113, 50674, 50844, 50908, 65535,
)  # fmt: skip
# Numbers that a reader computes sizes from, with values that are near to good ones and far from it.
_VALUES: dict[int, Sequence[int]] = {
    256: _SIZES,  # ImageWidth
    257: _SIZES,  # ImageLength
    258: (0, 1, 2, 4, 8, 12, 16, 24, 32, 63, 64, 128, 65_535),  # BitsPerSample
    259: _COMPRESSIONS,
    262: (*range(11), 32803, 34892, 65535),  # PhotometricInterpretation
    273: _SIZES,  # StripOffsets
    277: (0, 1, 3, 6, 7, 8, 64, 65, 4_096, 65_535),  # SamplesPerPixel
    278: _SIZES,  # RowsPerStrip
    279: _SIZES,  # StripByteCounts
    284: (0, 1, 2, 3, 65_535),  # PlanarConfiguration
    317: (0, 1, 2, 3, 4, 34892, 65_535),  # Predictor
    322: (*_SIZES, 16, 32, 512),  # TileWidth
    323: (*_SIZES, 16, 32, 512),  # TileLength
    324: _SIZES,  # TileOffsets
    325: _SIZES,  # TileByteCounts
    338: (0, 1, 2, 3, 999),  # ExtraSamples
    339: (0, 1, 2, 3, 4, 5, 6, 7, 65_535),  # SampleFormat
}
_TEXTS: dict[int, Sequence[bytes]] = {
    306: (b"0000:00:00 00:00:00\0", b"9999:99:99 99:99:99\0", b"\xff" * 20, b"2020:02:30 24:00:60\0"),
    42113: (b"nan\0", b"1e999\0", b"-inf\0", b"0x10\0", b"9" * 40 + b"\0", b"\0", b"\xff\xfe\0"),
    42112: (
        b"<GDALMetadata>" * 400,
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><GDALMetadata>&b;</GDALMetadata>\0',
        b'<GDALMetadata><Item name="OVERVIEW_FILE" domain="OVERVIEWS">/vsicurl/http://127.0.0.1:9/x</Item>'
        b"</GDALMetadata>\0",
        b'<GDALMetadata><Item name="SCALE" sample="0" role="scale">nan</Item>'
        b'<Item name="OFFSET" sample="0" role="offset">1e400</Item></GDALMetadata>\0',
        b'<GDALMetadata><Item name="DESCRIPTION" sample="-1" role="description">\xff</Item></GDALMetadata>',
    ),
}

Mutation = Callable[[bytearray, random.Random], bytes | bytearray]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """A file with one to six kinds of damage; now and then something else altogether."""
    if rng.random() < 0.03:
        return _disguised(seed, rng)
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        data = bytearray(rng.choices(_MUTATIONS, _WEIGHTS)[0](data, rng))
    return bytes(data)


def _value(data: bytearray, rng: random.Random) -> bytearray:
    """A size, offset, compression ... that is another one."""
    found, entry = _some_entry(data, rng, among=_VALUES)
    if found and entry:
        index = rng.randrange(min(entry.count, 512)) if entry.count else 0
        # One of a list such as strip offsets, or all: seven bands with the same number of bits.
        value = rng.choice(_VALUES[entry.tag])
        for position in (index,) if rng.random() < 0.5 else range(min(entry.count, 64)):
            write_value(data, found, entry, position, value)
    return data


def _place(data: bytearray, rng: random.Random) -> bytearray:
    """A georeferencing that is none: pixel scale, tie points, matrix, keys."""
    found, entry = _some_entry(data, rng, among=(33550, 33922, 34264, 34735, 34736))
    if found and entry and entry.count:
        for _ in range(rng.randint(1, 3)):
            index = rng.randrange(min(entry.count, 64))
            value = rng.choice(_SIZES) if entry.tag == 34735 else rng.choice(_DOUBLES)
            write_value(data, found, entry, index, value)
    return data


def _text(data: bytearray, rng: random.Random) -> bytearray:
    """A text of GDAL's, at the end of the file."""
    found, entry = _some_entry(data, rng, among=_TEXTS)
    if found and entry:
        text = rng.choice(_TEXTS[entry.tag])
        _set_count(data, found, entry, len(text))
        _set_pointer(data, found, entry, len(data))
        data += text
    return data


def _tag(data: bytearray, rng: random.Random) -> bytearray:
    """An entry under another tag."""
    found, entry = _some_entry(data, rng)
    if found and entry:
        struct.pack_into(found.order + "H", data, entry.at, rng.choice(_TAGS))
    return data


def _kind(data: bytearray, rng: random.Random) -> bytearray:
    """An entry of another type."""
    found, entry = _some_entry(data, rng)
    if found and entry:
        struct.pack_into(found.order + "H", data, entry.at + 2, rng.choice((*range(20), 255, 65_535)))
    return data


def _count(data: bytearray, rng: random.Random) -> bytearray:
    """An entry with more or fewer values than it has."""
    found, entry = _some_entry(data, rng)
    if found and entry:
        near = (entry.count - 1, entry.count + 1, entry.count * 2, entry.count * 1000)
        _set_count(data, found, entry, rng.choice((*near, *_SIZES, 2**63, 2**64 - 1)))
    return data


def _offset(data: bytearray, rng: random.Random) -> bytearray:
    """An entry whose values lie elsewhere: on itself, in the directory, at or after the end."""
    found, entry = _some_entry(data, rng)
    if found and entry:
        end = len(data)
        places = (
            0,
            2,
            8,
            entry.at,
            found.entries_at,
            end,
            end - 1,
            end - 8,
            end + 1,
            2**31,
            2**32 - 1,
            2**64 - 1,
        )
        _set_pointer(data, found, entry, rng.choice(places))
    return data


def _next_directory(data: bytearray, rng: random.Random) -> bytearray:
    """Directories in a circle, in the pixels, or behind the end; a chain of many."""
    found = layout(data)
    if found is None or found.next_at > len(data) - 8:
        return data
    if rng.random() < 0.2:
        # A thousand copies of the directory, each pointing to the next one.
        copy = bytes(data[found.entries_at : found.next_at])
        for _ in range(min(1000, 400_000 // (len(copy) + 8))):
            at = len(data) + (len(data) % 2)
            data += b"\0" * (at - len(data))
            _pack(data, found, found.next_at, at)
            data += copy + b"\0" * 8
            found = Layout(found.order, found.big, at, at + len(copy), ())
        return data
    target = rng.choice((found.entries_at, 8, 0, found.entries_at + 2, len(data), rng.randrange(len(data))))
    _pack(data, found, found.next_at, target)
    return data


def _entries(data: bytearray, rng: random.Random) -> bytearray:
    """A directory with another number of entries, or with one of them twice."""
    found = layout(data)
    if found is None or not found.entries:
        return data
    if rng.random() < 0.5:
        number = rng.choice((0, 1, len(found.entries) - 1, len(found.entries) + 1, 4_097, 65_535))
        struct.pack_into(found.order + ("Q" if found.big else "H"), data, found.entries_at, number)
    else:
        step = 20 if found.big else 12
        one, other = rng.choice(found.entries), rng.choice(found.entries)
        data[one.at : one.at + step] = data[other.at : other.at + step]
    return data


def _header(data: bytearray, rng: random.Random) -> bytearray:
    """The other byte order, the other kind of TIFF, another first directory."""
    choice = rng.randrange(3)
    if choice == 0:
        data[0:2] = rng.choice((b"II", b"MM"))
    elif choice == 1:
        data[2:4] = rng.choice((b"*\0", b"+\0", b"\0*", b"\0+", b"\0\0", b"RS", b"U\0"))
    else:
        struct.pack_into("<I", data, 4, rng.choice((0, 4, 7, 8, len(data) - 2, len(data), 2**32 - 1)))
    return data


def _bits(data: bytearray, rng: random.Random) -> bytearray:
    """Bytes that are others, anywhere: mostly compressed pixels."""
    for _ in range(rng.choice((1, 4, 32, 256))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    """A file that breaks off, or misses a part."""
    at = rng.randrange(8, len(data)) if len(data) > 8 else len(data)
    if rng.random() < 0.7:
        return data[:at]
    del data[at : at + rng.choice((1, 2, 100, 10_000))]
    return data


def _grow(data: bytearray, rng: random.Random) -> bytearray:
    """Bytes in between or after the end."""
    at = rng.choice((len(data), rng.randrange(len(data) + 1)))
    data[at:at] = rng.choice((b"\0", b"\xff" * 64, rng.randbytes(1000), bytes(data[:2000])))
    return data


_WEIGHTED: dict[Mutation, int] = {
    _value: 30, _place: 8, _text: 5, _tag: 6, _kind: 6, _count: 8, _offset: 8, _next_directory: 3,
    _entries: 4, _header: 2, _bits: 10, _cut: 6, _grow: 4,
}  # fmt: skip
_MUTATIONS, _WEIGHTS = list(_WEIGHTED), list(_WEIGHTED.values())


def _disguised(seed: bytes, rng: random.Random) -> bytes:
    """What a TIFF's name or first bytes may hide."""
    vrt = (
        b'<VRTDataset rasterXSize="41" rasterYSize="41"><VRTRasterBand dataType="UInt16" band="1">'
        b"<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("tile.tif", seed)
    magic = rng.choice((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
    return rng.choice(
        (
            vrt,
            magic + vrt,
            packed.getvalue(),
            magic + packed.getvalue(),
            gzip.compress(seed[:5000]),
            b"/vsicurl/http://127.0.0.1:9/x.tif",
            magic + b"/vsizip//vsimem/upload.tif",
            b"GDAL_DIR:1:/etc/passwd",
            magic + rng.randbytes(rng.choice((0, 4, 12, 100, 5000))),
            b"",
        )
    )


def _some_entry(
    data: bytearray, rng: random.Random, among: Sequence[int] | dict[int, Sequence[object]] | None = None
) -> tuple[Layout | None, Entry | None]:
    found = layout(data)
    step = 20 if found is not None and found.big else 12
    entries = [
        entry
        for entry in (found.entries if found else ())
        if (among is None or entry.tag in among) and entry.at + step <= len(data)
    ]
    return found, rng.choice(entries) if entries else None


def _set_count(data: bytearray, found: Layout, entry: Entry, count: int) -> None:
    _pack(data, found, found.counter(entry), count)


def _set_pointer(data: bytearray, found: Layout, entry: Entry, offset: int) -> None:
    _pack(data, found, found.pointer(entry), offset)


def _pack(data: bytearray, found: Layout, at: int, value: int) -> None:
    struct.pack_into(found.offset_format, data, at, max(0, value) % (1 << (64 if found.big else 32)))
