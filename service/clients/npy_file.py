"""An array in the NPY format that is written row by row."""

from __future__ import annotations

from typing import IO

import numpy as np
from numpy.typing import NDArray


class NpyFile:
    """float32 (N, *shape), version 1.0; how many rows it has is known, and written, in the end.

    Args:
        file: to write to, in which one can go back.
        shape: of a row.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._file = file
        self._start = file.tell()
        self._rows = 0
        self._head()

    def add(self, rows: NDArray[np.float32]) -> None:
        """Writes rows."""
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self._rows += len(rows)

    def finish(self) -> None:
        """Writes how many there are. NumPy leaves room in the header for that."""
        self._file.seek(self._start)
        self._head()
        self._file.seek(0, 2)

    def _head(self) -> None:
        said = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, said)
