"""The first level of the cache: inside the process, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from service.caching.cache_metrics import CACHE_BYTES

# What an entry costs beside key and value: two objects and a slot of the table (measured, CPython 3.11).
ENTRY_OVERHEAD_BYTES = 250


class MemoryStore:
    """The least recently used entries go when the bytes run out.

    Args:
        max_bytes: for keys, values and what keeping them costs; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, None for each that is not there."""
        found = [self._entries.get(key) for key in keys]
        for key, value in zip(keys, found, strict=True):
            if value is not None:
                self._entries.move_to_end(key)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keeps values; one that alone is larger than the store is not kept."""
        for key, value in entries.items():
            if (old := self._entries.pop(key, None)) is not None:
                self._bytes -= _cost(key, old)
            cost = _cost(key, value)
            if cost > self._max_bytes:
                continue
            self._entries[key] = value
            self._bytes += cost
        while self._bytes > self._max_bytes:
            key, value = self._entries.popitem(last=False)
            self._bytes -= _cost(key, value)
        CACHE_BYTES.set(self._bytes)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._bytes = 0
        CACHE_BYTES.set(0)


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_OVERHEAD_BYTES
