"""The answers to several requests → one file, as a single request would have been answered.

Each merger is given the answers in the order of the tiles, and writes them one by one: memory does not grow
with them. An answer is the body of a response in the merger's wire format; or, where all tiles of a request
failed, their items with `index`, `id` and `error`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from service.clients.npy_file import NpyFile
from service.clients.results import decoded
from service.json_text import dumps

Item = dict[str, Any]
Piece = bytes | list[Item]


class Merger(Protocol):
    """Puts answers together."""

    wire_format: str
    """What the service is asked for."""

    def begin(self, file: IO[bytes], bodies: Iterator[bytes], /) -> None:
        """Begins to write.

        Args:
            file: binary, in which one can go back.
            bodies: of all answers that will be added, one at least; for what must be known before.
        """

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """Takes the answer to one request, and writes it where that was begun.

        Args:
            piece: what came.
            indices: of the request's tiles among all.

        Returns:
            The items that have an error, with their index among all tiles.
        """

    def finish(self) -> None:
        """Writes the end of the file."""


class JsonMerger:
    """JSON (also with base64) or GeoJSON: the first answer's head, all items, the sum of the summaries."""

    def __init__(self, wire_format: str) -> None:
        self.wire_format = wire_format
        self._key = "features" if wire_format == "geojson" else "data"
        self._file: IO[bytes] | None = None
        self._between = b""
        self._summary: dict[str, int] = {}

    def begin(self, file: IO[bytes], bodies: Iterator[bytes]) -> None:
        """See `Merger.begin`."""
        body = orjson.loads(next(bodies))
        head = {name: value for name, value in body.items() if name not in (self._key, "summary")}
        file.write(dumps({**head, self._key: []}).removesuffix(b"]}"))
        self._file = file

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if isinstance(piece, bytes):
            body = orjson.loads(piece)
            items = body[self._key]
            count(self._summary, body["summary"])
            _renumber((self._properties(item) for item in items), indices)
        else:
            items = [_feature(item) for item in piece] if self._key == "features" else piece
            count(self._summary, all_failed(piece))
        if self._file is not None:
            for item in items:
                self._file.write(self._between + dumps(item))
                self._between = b","
        return [p for item in items if (p := self._properties(item)).get("error") is not None]

    def finish(self) -> None:
        """See `Merger.finish`."""
        if self._file is not None:
            self._file.write(b'],"summary":' + dumps(self._summary) + b"}")

    def _properties(self, item: Item) -> Item:
        properties: Item = item["properties"] if self._key == "features" else item
        return properties


class NdjsonMerger:
    """A line for each item."""

    wire_format = "ndjson"

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def begin(self, file: IO[bytes], _bodies: Iterator[bytes]) -> None:
        """See `Merger.begin`."""
        self._file = file

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        items = piece
        if isinstance(items, bytes):
            items = [orjson.loads(line) for line in items.splitlines() if line]
            _renumber(items, indices)
        if self._file is not None:
            for item in items:
                self._file.write(dumps(item) + b"\n")
        return [item for item in items if item.get("error") is not None]

    def finish(self) -> None:
        """See `Merger.finish`."""


class NpyMerger:
    """float32 (N, dim) or (N, tokens, dim); NaN where a tile failed.

    Args:
        scenes: the service answers with an array for each scene; else with items, which say what failed.
    """

    def __init__(self, *, scenes: bool) -> None:
        self.wire_format = "npy" if scenes else "base64"
        self._file: NpyFile | None = None

    def begin(self, file: IO[bytes], bodies: Iterator[bytes]) -> None:
        """See `Merger.begin`."""
        self._file = NpyFile(file, next(filter(None, map(self._shape, bodies))))

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        rows, items = self._rows(piece)
        if isinstance(piece, bytes):
            _renumber(items, indices)
        if self._file is not None:
            missing = np.full(self._file.shape, math.nan, np.float32)
            for row in rows:
                self._file.add((missing if row is None else row)[None])
        return [item for item in items if item.get("error") is not None]

    def finish(self) -> None:
        """See `Merger.finish`."""
        if self._file is not None:
            self._file.finish()

    def _shape(self, body: bytes) -> tuple[int, ...] | None:
        """Of a row; None if there is none. A scene has one also where all its windows were left out."""
        if self.wire_format == "npy":
            return _array(body).shape[1:]
        return next((row.shape for row in self._rows(body)[0] if row is not None), None)

    def _rows(self, piece: Piece) -> tuple[Sequence[NDArray[np.float32] | None], list[Item]]:
        """An array for each row, or None; and items, where it has any."""
        if isinstance(piece, bytes) and self.wire_format == "npy":
            return list(_array(piece)), []
        if not isinstance(piece, bytes):
            return [None] * len(piece), piece
        body = orjson.loads(piece)
        items, dim = body["data"], body["dim"]
        return [decoded(item["embedding"], dim) if "embedding" in item else None for item in items], items


def merger(output_format: str, route: str, *, scenes: bool) -> Merger:
    """The merger for a format of the service.

    Args:
        output_format: that is wanted.
        route: /embed or /classify, which is asked.
        scenes: whether each tile is one, with many windows.

    Raises:
        ValueError: answers in this format cannot be put together.
    """
    if output_format in ("json", "base64", "geojson"):
        return JsonMerger(output_format)
    if output_format == "ndjson":
        return NdjsonMerger()
    if output_format == "npy" and route == "/classify" and not scenes:
        from service.clients.merge_parquet import ProbabilitiesMerger

        return ProbabilitiesMerger()
    if output_format == "npy":
        return NpyMerger(scenes=scenes)
    if output_format == "parquet":
        from service.clients.merge_parquet import ParquetMerger

        return ParquetMerger()
    raise ValueError(f"{output_format} holds one scene; several tiles were given")


def _array(body: bytes) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    return found


def _renumber(items: Iterator[Item] | Sequence[Item], indices: Sequence[int]) -> None:
    for item in items:
        item["index"] = indices[item["index"]]


def count(total: dict[str, int], summary: dict[str, int]) -> None:
    """Adds a summary to the total."""
    for name, number in summary.items():
        total[name] = total.get(name, 0) + number


def all_failed(items: Sequence[Item]) -> dict[str, int]:
    """The summary of a request in which no tile succeeded."""
    n = len(items)
    return {"tiles": n, "windows": n, "embedded": 0, "skipped_empty": 0, "failed": n}


def _feature(item: Item) -> Item:
    return {"type": "Feature", "id": item["id"], "geometry": None, "properties": item}
