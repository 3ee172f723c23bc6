"""Blocks of a scene that were read and are still wanted: in memory if they are small together, else on disk.

On disk they lie in one file without a name, in slots that are used again, and count with all that is spooled.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from service.http.spool import Spool, explained


@dataclass(frozen=True, slots=True)
class Kept:
    """A block: uint16 of a shape (planes, rows, columns), in memory or in a slot on disk."""

    shape: tuple[int, int, int]
    values: NDArray[np.uint16] | None
    slot: int


class KeptBlocks:
    """Keeps blocks until they are dropped. One thread at a time may use it.

    Args:
        spool: whose folder and bounds hold for what goes to disk.
        largest_bytes: of a block.
        together_bytes: of all that are kept at a time; over the spool's bound for memory they go to disk.
    """

    def __init__(self, spool: Spool, largest_bytes: int, together_bytes: int) -> None:
        self._spool = spool
        self._slot_bytes = largest_bytes
        self._on_disk = together_bytes > spool.memory_bytes
        self._file: IO[bytes] | None = None
        self._slots = 0
        self._free: list[int] = []

    def keep(self, values: NDArray[np.uint16]) -> Kept:
        """Takes a block (planes, rows, columns); the array is not to be changed afterwards.

        Raises:
            SpoolError: there is no room on disk.
        """
        planes, rows, cols = values.shape
        if not self._on_disk:
            return Kept((planes, rows, cols), values, -1)
        slot = self._free.pop() if self._free else self._new_slot()
        content = np.ascontiguousarray(values).data.cast("B")
        self._write(content, slot * self._slot_bytes)
        return Kept((planes, rows, cols), None, slot)

    def rows(self, block: Kept, first: int, stop: int) -> NDArray[np.uint16]:
        """Rows of a block: uint16 (planes, stop - first, columns), not to be changed."""
        if block.values is not None:
            return block.values[:, first:stop]
        planes, rows, cols = block.shape
        found = np.empty((planes, stop - first, cols), np.uint16)
        for plane, into in enumerate(found):
            start = block.slot * self._slot_bytes + (plane * rows + first) * cols * found.itemsize
            self._read(into.data.cast("B"), start)
        return found

    def drop(self, block: Kept) -> None:
        """Forgets a block."""
        if block.values is None:
            self._free.append(block.slot)

    def close(self) -> None:
        """Frees the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._spool.give_back(self._slots * self._slot_bytes)
        self._slots = 0

    def _new_slot(self) -> int:
        self._spool.take(self._slot_bytes)
        self._slots += 1
        return self._slots - 1

    def _write(self, content: memoryview, start: int) -> None:
        try:
            if self._file is None:
                folder = self._spool.folder
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed by close
            done = 0
            while done < len(content):
                done += os.pwrite(self._file.fileno(), content[done:], start + done)
        except OSError as error:
            raise explained(error) from error

    def _read(self, into: memoryview, start: int) -> None:
        assert self._file is not None  # noqa: S101  # the block was written
        done = 0
        while done < len(into):
            count = os.preadv(self._file.fileno(), [into[done:]], start + done)
            if not count:
                raise EOFError(f"{len(into) - done} bytes of a block are missing on disk")
            done += count


def block_bytes(planes: int, rows: int, cols: int) -> int:
    """Of a block that is kept."""
    return math.prod((planes, rows, cols)) * np.dtype(np.uint16).itemsize
