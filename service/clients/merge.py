"""The answers to several requests → one file, as a single request would have been answered.

Each merger is given the answers in the order of the tiles. An answer is the body of a response in the
merger's wire format; or, where all tiles of a request failed, their items with `index`, `id` and `error`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from service.clients.results import decoded
from service.json_text import dumps

Item = dict[str, Any]
Piece = bytes | list[Item]


class Merger(Protocol):
    """Puts answers together."""

    wire_format: str
    """What the service is asked for."""

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """Takes the answer to one request.

        Args:
            piece: what came.
            indices: of the request's tiles among all.

        Returns:
            The items that have an error, with their index among all tiles.
        """

    def finish(self) -> bytes:
        """The file."""


class JsonMerger:
    """JSON (also with base64) or GeoJSON: the first answer's head, all items, the sum of the summaries."""

    def __init__(self, wire_format: str) -> None:
        self.wire_format = wire_format
        self._key = "features" if wire_format == "geojson" else "data"
        self._head: dict[str, Any] = {}
        self._items: list[Item] = []
        self._summary: dict[str, int] = {}

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if isinstance(piece, bytes):
            body = orjson.loads(piece)
            items = body.pop(self._key)
            count(self._summary, body.pop("summary"))
            self._head = self._head or body
            _renumber((self._properties(item) for item in items), indices)
        else:
            items = [_feature(item) for item in piece] if self._key == "features" else piece
            count(self._summary, all_failed(piece))
        self._items += items
        return [p for item in items if (p := self._properties(item)).get("error") is not None]

    def finish(self) -> bytes:
        """See `Merger.finish`."""
        return dumps({**self._head, self._key: self._items, "summary": self._summary})

    def _properties(self, item: Item) -> Item:
        properties: Item = item["properties"] if self._key == "features" else item
        return properties


class NdjsonMerger:
    """A line for each item."""

    wire_format = "ndjson"

    def __init__(self) -> None:
        self._file = io.BytesIO()

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        items = piece
        if isinstance(items, bytes):
            items = [orjson.loads(line) for line in items.splitlines() if line]
            _renumber(items, indices)
        for item in items:
            self._file.write(dumps(item) + b"\n")
        return [item for item in items if item.get("error") is not None]

    def finish(self) -> bytes:
        """See `Merger.finish`."""
        return self._file.getvalue()


class NpyMerger:
    """float32 (N, dim) or (N, tokens, dim); NaN where a tile failed.

    Args:
        scenes: the service answers with an array for each scene; else with items, which say what failed.
    """

    def __init__(self, *, scenes: bool) -> None:
        self.wire_format = "npy" if scenes else "base64"
        self._rows: list[NDArray[np.float32] | None] = []

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if isinstance(piece, bytes) and self.wire_format == "npy":
            self._rows += list(np.lib.format.read_array(io.BytesIO(piece), allow_pickle=False))
            return []
        if isinstance(piece, bytes):
            body = orjson.loads(piece)
            _renumber(body["data"], indices)
            items, dim = body["data"], body["dim"]
        else:
            items, dim = piece, 0
        for item in items:
            self._rows.append(decoded(item["embedding"], dim) if "embedding" in item else None)
        return [item for item in items if item.get("error") is not None]

    def finish(self) -> bytes:
        """See `Merger.finish`."""
        found = next(row for row in self._rows if row is not None)
        missing = np.full_like(found, math.nan)
        return npy(np.stack([missing if row is None else row for row in self._rows]))


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


def npy(values: NDArray[np.float32]) -> bytes:
    """An array in the NPY format, version 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


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
