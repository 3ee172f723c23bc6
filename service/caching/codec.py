"""What is stored in Redis: a payload behind a short header, by which a damaged or foreign value is told.

    bytes 0-1   magic "LM"
    byte  2     version of this layout
    byte  3     0
    bytes 4-7   CRC-32 (little-endian) of key and payload
    bytes 8-    payload: raw little-endian float32, or JSON

The CRC covers the key, so that a value that came under another key is foreign too. It guards against
accidents, not against whoever may write to the Redis server.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_VERSION = 1
_HEADER = struct.Struct("<2sBBI")
_MAGIC = b"LM"


def pack(key: bytes, payload: bytes) -> bytes:
    """The value to store under a key."""
    return _HEADER.pack(_MAGIC, _VERSION, 0, _checksum(key, payload)) + payload


def unpack(key: bytes, value: object) -> bytes | None:
    """The payload of a value found under a key; None if the value is damaged or not ours."""
    if not isinstance(value, bytes) or len(value) < _HEADER.size:
        return None
    magic, version, zero, checksum = _HEADER.unpack_from(value)
    payload = value[_HEADER.size :]
    if (magic, version, zero, checksum) != (_MAGIC, _VERSION, 0, _checksum(key, payload)):
        return None
    return payload


def is_result(payload: bytes, size: int) -> bool:
    """Whether a payload is `size` bytes of finite little-endian float32."""
    return len(payload) == size and bool(np.isfinite(np.frombuffer(payload, "<f4")).all())


def _checksum(key: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(key))
