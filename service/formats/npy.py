"""NPY: the results as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.formats import Head, Item, value
from service.http.spool import SpoolFile


class NpyWriter:
    """float32 (N, *shape) in the NPY format, version 1.0.

    Errors have no room in it: the answer is a problem instead, or, with `as_nan`, their rows are NaN, as are
    those of windows that were skipped.
    """

    def __init__(self, file: SpoolFile, head: Head) -> None:
        self._file = file
        self._shape = head.shape
        self._missing = np.full(head.shape, np.nan, "<f4").tobytes() if head.as_nan else b""
        self._rows = 0
        self._write_header()  # again at the end: numpy leaves room for a number of rows of any length

    def add(self, items: Sequence[Item]) -> None:
        """Writes rows."""
        for item in items:
            row = value(item)
            data = self._missing if row is None else np.ascontiguousarray(row, "<f4").tobytes()
            self._rows += bool(data)
            self._file.write(data)

    def finish(self, _summary: dict[str, int]) -> None:
        """Writes the number of rows."""
        self._file.seek(0)
        self._write_header()

    def abandon(self) -> None:
        """Holds nothing."""

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
