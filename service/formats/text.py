"""JSON, JSON with base64, NDJSON and GeoJSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.formats import Head, Item
from service.http.spool import SpoolFile
from service.json_text import dumps


class JsonWriter:
    """The answer of the contract: model, pooling, dim, then the items, then the summary.

    Args:
        file: written to.
        head: what comes first.
        as_base64: embeddings as little-endian float32 in base64 instead of lists of numbers.
    """

    def __init__(self, file: SpoolFile, head: Head, *, as_base64: bool = False) -> None:
        self._file = file
        self._as_base64 = as_base64
        self._separator = b""
        file.write(dumps(head.fields)[:-1] + b',"data":[')

    def add(self, items: Sequence[Item]) -> None:
        """Writes items; windows that were skipped are counted only."""
        for item in items:
            if "skipped" not in item:
                self._file.write(self._separator + dumps(_shown(item, as_base64=self._as_base64)))
                self._separator = b","

    def finish(self, summary: dict[str, int]) -> None:
        """Writes the summary."""
        self._file.write(b'],"summary":' + dumps(summary) + b"}")

    def abandon(self) -> None:
        """Holds nothing."""


class NdjsonWriter:
    """A line of JSON for each item, with an `error` that is null where there is none."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def add(self, items: Sequence[Item]) -> None:
        """Writes lines."""
        for item in items:
            if "skipped" not in item:
                self._file.write(dumps({**_shown(item), "error": item.get("error")}) + b"\n")

    def finish(self, summary: dict[str, int]) -> None:
        """Nothing comes after the lines."""

    def abandon(self) -> None:
        """Holds nothing."""


class GeojsonWriter:
    """A FeatureCollection (RFC 7946) of footprints; model, pooling, dim and summary are foreign members."""

    def __init__(self, file: SpoolFile, head: Head) -> None:
        self._file = file
        self._separator = b""
        file.write(dumps({"type": "FeatureCollection", **head.fields})[:-1] + b',"features":[')

    def add(self, items: Sequence[Item]) -> None:
        """Writes features; one of a tile without a place has no geometry."""
        for item in items:
            if "skipped" in item:
                continue
            properties = {**_shown(item), "error": item.get("error")}
            feature = {
                "type": "Feature",
                "id": item.get("id", str(item["index"])),
                "geometry": properties.pop("footprint", None),
                "properties": properties,
            }
            self._file.write(self._separator + dumps(feature))
            self._separator = b","

    def finish(self, summary: dict[str, int]) -> None:
        """Closes the collection."""
        self._file.write(b'],"summary":' + dumps(summary) + b"}")

    def abandon(self) -> None:
        """Holds nothing."""


def _shown(item: Item, *, as_base64: bool = False) -> dict[str, Any]:
    shown = {name: value for name, value in item.items() if name != "probabilities"}
    if as_base64 and "embedding" in item:
        values = np.ascontiguousarray(item["embedding"], dtype="<f4")
        shown["embedding"] = base64.b64encode(values.data).decode("ascii")
    return shown
