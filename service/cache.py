"""Results kept for tiles that come again: the key, and a store inside the process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service import metrics

# What an entry costs beside its value: the key, two objects and a slot of the table (measured, CPython 3.11).
ENTRY_OVERHEAD_BYTES = 250


class Cache(Protocol):
    """Where results wait to be asked for again. A store that fails answers a miss and never raises."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, None for each that is not there."""

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keeps values; returns at once."""

    async def close(self) -> None:
        """Lets go of connections."""


class Namespace:
    """Makes keys that no other model, precision, provider or rule of preparation shares.

    Args:
        encoder_digest: SHA-256 (hex) of the ONNX file that runs.
        provider: what it runs on.
        precision: and in which numbers.
        preprocessing_version: of the rules that made the tile.
    """

    def __init__(
        self, encoder_digest: str, provider: str, precision: str, preprocessing_version: int
    ) -> None:
        self._prefix = f"landmoe:{encoder_digest}:{provider}:{precision}:{preprocessing_version}:"

    def key(self, tile: bytes, output: str) -> bytes:
        """The key of one output of one prepared tile, 32 bytes.

        Args:
            tile: `tile_hash` of it.
            output: of the network, one of the poolings.
        """
        return hashlib.sha256(f"{self._prefix}{output}:".encode() + tile).digest()


def tile_hash(dn: NDArray[np.uint16], encoding: NDArray[np.float32]) -> bytes:
    """SHA-256 of everything that the network sees of a tile.

    A cryptographic hash, since a client who finds two tiles with one hash could make another's answer wrong.

    Args:
        dn: prepared pixels, uint16 (7, 40, 40), C-contiguous.
        encoding: metadata, float32 (4, 2), C-contiguous.
    """
    state = hashlib.sha256(np.ascontiguousarray(dn).data)
    state.update(np.ascontiguousarray(encoding).data)
    return state.digest()


class MemoryCache:
    """The least recently used results go when the bytes run out.

    Args:
        max_bytes: for keys, values and what keeping them costs; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, None for each that is not there."""
        found = [self._entries.get(key) for key in keys]
        for key, value in zip(keys, found, strict=True):
            if value is not None:
                self._entries.move_to_end(key)
        hits = sum(value is not None for value in found)
        metrics.CACHE_HITS.inc(hits)
        metrics.CACHE_MISSES.inc(len(found) - hits)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keeps values; one that alone is larger than the cache is not kept."""
        for key, value in entries.items():
            cost = _cost(key, value)
            if cost > self._max_bytes:
                continue
            if (old := self._entries.pop(key, None)) is not None:
                self._bytes -= _cost(key, old)
            self._entries[key] = value
            self._bytes += cost
        while self._bytes > self._max_bytes:
            key, value = self._entries.popitem(last=False)
            self._bytes -= _cost(key, value)
        metrics.CACHE_BYTES.set(self._bytes)

    async def close(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._bytes = 0
        metrics.CACHE_BYTES.set(0)


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_OVERHEAD_BYTES
