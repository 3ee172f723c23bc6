"""Files made to hurt a trusting reader: each is answered soon, with a reason, and costs little memory."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient

from tests.fuzz.tiff import Layout, layout
from tests.rasters import dn_pixels, geotiff

TIFF = {"Content-Type": "image/tiff"}
MAX_S = 5.0
MAX_GROWTH_BYTES = 300_000_000


def tiff(entries: dict[int, tuple[int, int, int]], tail: bytes = b"", *, following: int = 0) -> bytes:
    """A little-endian classic TIFF of one directory: tag → (type, count, value or offset)."""
    body = struct.pack("<H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        body += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", following) + tail


def plain(**changed: int) -> dict[int, tuple[int, int, int]]:
    """Entries of a gray 40 x 40 px file of 8 bits, whose pixels are said to be at 8."""
    values = {
        "width": 40, "height": 40, "bits": 8, "compression": 1, "photometric": 1, "offset": 8, "samples": 1,
        "rows": 40, "bytes": 1600, "planar": 1,
    } | changed  # fmt: skip
    tags = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273,
        "samples": 277, "rows": 278, "bytes": 279, "planar": 284,
    }  # fmt: skip
    return {tags[name]: (4, 1, value) for name, value in values.items()}


def bomb() -> bytes:
    """100 MB of zeros that deflate to 100 kB, said to be 10,000 x 10,000 px."""
    packed = zlib.compress(bytes(100_000_000), 9)
    head = tiff(plain(width=10_000, height=10_000, rows=10_000, compression=8))
    return tiff(
        plain(width=10_000, height=10_000, rows=10_000, compression=8, offset=len(head), bytes=len(packed)),
        packed,
    )


def changed_pointer(data: bytes, tag: int, to: int) -> bytes:
    out, found = bytearray(data), known(data)
    entry = next(entry for entry in found.entries if entry.tag == tag)
    struct.pack_into(found.offset_format, out, found.pointer(entry), to)
    return bytes(out)


def changed_doubles(data: bytes, tag: int, *values: float) -> bytes:
    out, found = bytearray(data), known(data)
    entry = next(entry for entry in found.entries if entry.tag == tag)
    struct.pack_into(f"{found.order}{len(values)}d", out, entry.data, *values)
    return bytes(out)


def cyclic() -> bytes:
    out = bytearray(geotiff())
    found = known(bytes(out))
    struct.pack_into(found.offset_format, out, found.next_at, found.entries_at)
    return bytes(out)


def known(data: bytes) -> Layout:
    found = layout(data)
    assert found is not None
    return found


GOOD = geotiff()
REFUSED = {
    "absurd width": tiff(plain(width=2**32 - 1)),
    "absurd area": tiff(plain(width=2**31 - 1, height=2**31 - 1)),
    "no width": tiff(plain(width=0)),
    "no rows in a strip": tiff(plain(rows=0)),
    "65,535 bands": tiff(plain(samples=65_535, planar=2)),
    "4,000 bands in good order": geotiff(np.ones((4_000, 2, 2), np.uint16)),
    "0 bits": tiff(plain(bits=0)),
    "strip behind the end": tiff(plain(offset=2**32 - 2)),
    "strip longer than the file": tiff(plain(bytes=2**32 - 1, width=8_000, height=8_000)),
    "strip cut off": GOOD[: len(GOOD) - 5_000],
    "unknown compression": tiff(plain(compression=65_000)),
    "JPEG that is none": tiff(plain(compression=7)),
    "deflate that is none": tiff(plain(compression=8)),
    "bomb": bomb(),
    "directory in itself": b"II*\0" + struct.pack("<I", 4),
    "directory behind the end": b"II*\0" + struct.pack("<I", 2**32 - 8),
    "no directory": b"II*\0" + bytes(4),
    "BigTIFF, nothing in it": b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", 2**63),
    "BigTIFF, offsets of 4 bytes": b"II+\0\x04\0\0\0" + bytes(8),
    "VRT": b'<VRTDataset rasterXSize="40" rasterYSize="40"></VRTDataset>',
    "VRT behind a magic": b'II*\0<VRTDataset rasterXSize="40" rasterYSize="40"></VRTDataset>',
    "zip": b"PK\x03\x04" + bytes(100),
    "name of a virtual file": b"/vsizip//vsicurl/http://127.0.0.1:9/a.zip/a.tif",
    "name of a virtual file behind a magic": b"II*\0/vsizip//vsimem/upload.tif",
    "name of a subdataset": b"GTIFF_DIR:1:/etc/passwd",
}
READ = {
    "directories in a circle": cyclic(),
    "BigTIFF": geotiff(BIGTIFF="YES", ENDIANNESS="BIG"),
    "NaN in the pixel size": changed_doubles(GOOD, 33550, np.nan, np.nan, 0.0),
    "negative pixel size": changed_doubles(GOOD, 33550, -30.0, -30.0, 0.0),
    "infinite tie point": changed_doubles(GOOD, 33922, 0.0, 0.0, 0.0, np.inf, -np.inf, 0.0),
    "tie point at the end of numbers": changed_doubles(GOOD, 33922, 0.0, 0.0, 0.0, 1e308, 1e308, 0.0),
    "geographic keys behind the end": changed_pointer(GOOD, 34735, 2**32 - 4),
    "NaN and infinity among reflectances": geotiff(
        np.where(dn_pixels() % 97 == 0, np.nan, dn_pixels() * 2.75e-5 - 0.2).astype(np.float32)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(client: TestClient, name: str) -> None:
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    response = client.post("/embed", content=REFUSED[name], headers=TIFF, params={"fit": "crop"})
    assert time.perf_counter() - start < MAX_S
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "/etc/passwd" not in response.text.replace("GTIFF_DIR:1:/etc/passwd", "")
    assert psutil.Process().memory_info().rss - before < MAX_GROWTH_BYTES


@pytest.mark.parametrize("name", READ)
def test_read_or_refused_but_never_placed_wrongly(client: TestClient, name: str) -> None:
    response = client.post("/embed", content=READ[name], headers=TIFF)
    assert response.status_code in (200, 422)
    if response.status_code == 200:
        [item] = response.json()["data"]
        assert item["lat"] is None or -90 <= item["lat"] <= 90
        assert all(np.isfinite(item["embedding"]))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\tiles\\a.tif", "a.tif"),
        ("/vsizip/a.zip/b.tif", "b.tif"),
        ("a\u202egnp.tif", "agnp.tif"),
        ("a\x1b[31m.tif", "a[31m.tif"),
        ("x" * 400, "x" * 255),
    ],
)
def test_names_of_files_are_names_only(client: TestClient, name: str, told: str) -> None:
    sent = name.replace("\\", "\\\\").encode()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="tile"; filename="' + sent
        + b'"\r\nContent-Type: image/tiff\r\n\r\n' + GOOD + b"\r\n--x--\r\n"
    )  # fmt: skip
    response = client.post(
        "/embed", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert response.json()["data"][0]["source"] == told
    assert "\x1b" not in str(response.headers)


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ("[" * 100_000, 422),
        ('[{"id": ' * 5_000 + "1" + "}]" * 5_000, 422),
        ("[" + ",".join(["{}"] * 50_000) + "]", 422),
        ('[{"id": "' + "x" * 2_000_000 + '"}]', 413),
        ('[{"id": 1e999}]', 422),
        ('[{"lat": NaN, "lon": 1}]', 422),
        ('[{"__proto__": {}}]', 422),
        ("[" + "9" * 5_000 + "]", 422),
        ('[{"id": "a", "id": "b"}]', 200),
        ("\ufeff[{}]", 422),
    ],
    ids=range(10),
)
def test_metadata_that_is_too_much(client: TestClient, metadata: str, status: int) -> None:
    start = time.perf_counter()
    response = client.post("/embed", files={"tile": ("a.tif", GOOD)}, data={"metadata": metadata})
    assert response.status_code == status, response.text[:300]
    assert len(response.text) < 10_000
    assert time.perf_counter() - start < MAX_S


@pytest.mark.parametrize("bands", [7, 6])
def test_a_scene_without_fit_is_refused_by_its_header(client: TestClient, bands: int) -> None:
    """Its pixels, which are damaged here, are not unpacked to say so."""
    data = bytearray(geotiff(dn_pixels(300, 300)[:bands], compress="deflate"))
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    problem = client.post("/embed", content=bytes(data), headers={"Content-Type": "image/tiff"}).json()
    assert problem["type"].rpartition(":")[2] == ("wrong-size" if bands == 7 else "missing-coastal")
    fitting = client.post(
        "/embed?fit=resize", content=bytes(data), headers={"Content-Type": "image/tiff"}
    ).json()
    assert fitting["type"].rpartition(":")[2] == ("unreadable-tiff" if bands == 7 else "missing-coastal")
