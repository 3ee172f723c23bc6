"""GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0): one row for each item."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyproj
import shapely
from pyarrow import parquet

from service.formats import Head, Item, value
from service.http.spool import SpoolFile

# Memory stays flat, and readers may skip. A row of tokens has 60 kB, one of 144 values 600 bytes.
_ROWS_PER_GROUP = 1024
_NUMBERS_PER_GROUP = 2_000_000
# Columns that say the same in many rows. Dictionaries of all others would take 24 MB while a group is
# written, and more than half as much again in the file.
REPETITIVE = ["probe", "selected.list.element", "source", "crs", "units", "warnings.list.element", "error"]
REPETITIVE += [f"metadata_source.{name}" for name in ("datetime", "hour", "location")]
EMB_VERSION = "0.0.1"  # of the `emb` key, as the survey of geo-embeddings (cloudnativegeo) describes it

# Arrow's own allocator, mimalloc, keeps some 60 MB that it had; the C library gives them back (allocator.py).
pa.set_memory_pool(pa.system_memory_pool())

_BBOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
# Without it a date whose hour is unknown could not be told from midnight.
_SOURCES = pa.struct([(name, pa.string()) for name in ("datetime", "hour", "location")])
_FIELDS: list[tuple[str, Any]] = [
    ("id", pa.string()),
    ("index", pa.int32()),
    ("geometry", pa.binary()),
    ("bbox", _BBOX),
    ("datetime", pa.timestamp("ms", tz="UTC")),
    ("lat", pa.float64()),
    ("lon", pa.float64()),
]
_AFTER: list[tuple[str, Any]] = [
    ("valid_fraction", pa.float32()),
    ("cloud_fraction", pa.float32()),
    ("row", pa.int32()),
    ("col", pa.int32()),
    ("source", pa.string()),
    ("crs", pa.string()),
    ("units", pa.string()),
    ("metadata_source", _SOURCES),
    ("warnings", pa.list_(pa.string())),
    ("error", pa.string()),
]


class ParquetWriter:
    """Rows with id, geometry (footprint, WKB, OGC:CRS84), bbox, datetime, numbers, and what is known.

    The numbers are `embedding`, a fixed-size list of float32 (tokens one after another), or a column of
    probabilities for each label, and `selected`. `error` is null where there is none. The file's metadata
    has `digest`, `landmoe` (model, pooling, dim) and `emb` beside `geo`.
    """

    def __init__(self, file: SpoolFile, head: Head) -> None:
        self._labels = head.labels
        self._size = int(np.prod(head.shape))
        self._rows: list[Item] = []
        self._bounds = [np.inf, np.inf, -np.inf, -np.inf]
        self._types: set[str] = set()
        if head.labels is None:
            numbers: list[tuple[str, Any]] = [("embedding", pa.list_(pa.float32(), self._size))]
        else:
            numbers = [(name, pa.float32()) for name in label_columns(head.labels)]
            numbers += [("probe", pa.string()), ("selected", pa.list_(pa.string()))]
        self._schema = pa.schema([*_FIELDS, *numbers, *_AFTER])
        self._head = head
        self._group = rows_per_group(self._size)
        self._writer = parquet.ParquetWriter(
            file, self._described(), compression="zstd", store_schema=True, use_dictionary=REPETITIVE
        )

    def add(self, items: Sequence[Item]) -> None:
        """Writes rows, a group at a time."""
        self._rows += [item for item in items if "skipped" not in item]
        while len(self._rows) >= self._group:
            self._write(self._rows[: self._group])
            del self._rows[: self._group]

    def finish(self, summary: dict[str, int]) -> None:
        """Writes the last group and the file's metadata, which tells the extent of all rows."""
        if self._rows:
            self._write(self._rows)
            self._rows = []
        self._writer.add_key_value_metadata(self._metadata({"summary": summary}))
        self._writer.close()

    def abandon(self) -> None:
        """Closes Arrow's writer, which would write on when it is collected."""
        with contextlib.suppress(Exception):  # the room on disk may be the reason that it is abandoned
            self._writer.close()

    def _write(self, items: Sequence[Item]) -> None:
        shapes = [_shape(item) for item in items]
        columns: list[Any] = [
            pa.array([str(item.get("id", item["index"])) for item in items], pa.string()),
            pa.array([item["index"] for item in items], pa.int32()),
            pa.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], pa.binary()),
            pa.array([self._box(shape) for shape in shapes], _BBOX),
            pa.array([_time(item.get("datetime")) for item in items], pa.timestamp("ms", tz="UTC")),
            pa.array([item.get("lat") for item in items], pa.float64()),
            pa.array([item.get("lon") for item in items], pa.float64()),
            *self._numbers(items),
        ]
        for name, kind in _AFTER:
            columns.append(pa.array([_plain(name, item.get(name)) for item in items], kind))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _numbers(self, items: Sequence[Item]) -> Iterator[Any]:
        values = [value(item) for item in items]
        missing = np.array([v is None for v in values])
        table = np.zeros((len(items), self._size), np.float32)
        for row, found in enumerate(values):
            if found is not None:
                table[row] = found.reshape(-1)
        if self._labels is None:
            flat = pa.array(table.reshape(-1))
            yield pa.FixedSizeListArray.from_arrays(
                flat, self._size, mask=pa.array(missing) if missing.any() else None
            )
            return
        for column in range(self._size):
            yield pa.array(table[:, column], pa.float32(), mask=missing)
        yield pa.array([item.get("probe") for item in items], pa.string())
        yield pa.array([item.get("selected") for item in items], pa.list_(pa.string()))

    def _box(self, shape: Any) -> dict[str, float] | None:
        if shape is None:
            return None
        west, south, east, north = box = shape.bounds
        self._bounds = [
            *map(min, self._bounds[:2], box[:2]),
            *map(max, self._bounds[2:], box[2:]),
        ]
        self._types.add(shape.geom_type)
        return {"xmin": west, "ymin": south, "xmax": east, "ymax": north}

    def _described(self) -> pa.Schema:
        """The schema with metadata as far as they are known before the rows.

        Of a file that has Arrow's schema, pyarrow's tables and data sets show what this had when the file was
        begun, and nothing that came with the end: what looks for `geo` there would find no geometry.
        """
        return self._schema.with_metadata(self._metadata({}))

    def _metadata(self, counted: dict[str, Any]) -> dict[str, str]:
        fields = self._head.fields
        return {
            "geo": orjson.dumps(self._geo()).decode(),
            "digest": fields["model"]["digest"],
            "landmoe": orjson.dumps(fields | counted).decode(),
            "emb": orjson.dumps(self._emb()).decode(),
        }

    def _geo(self) -> dict[str, Any]:
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": _crs84(),
            "orientation": "counterclockwise",
            "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
        }
        if self._types:
            column["bbox"] = self._bounds
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}

    def _emb(self) -> dict[str, Any]:
        model = self._head.fields["model"]
        return {
            "version": EMB_VERSION,
            "model": {**model, "pooling": self._head.fields["pooling"], "dtype": "float32"},
            "dimensions": list(self._head.shape) if self._labels is None else None,
            "normalized": self._head.normalized,
            "labels": self._labels,
        }


def rows_per_group(numbers: int) -> int:
    """How many rows of so many numbers are written together."""
    return max(1, min(_ROWS_PER_GROUP, _NUMBERS_PER_GROUP // numbers))


def label_columns(labels: Sequence[str]) -> list[str]:
    """Names of the columns of probabilities: the labels, with `label ` before one that another column has."""
    taken = {name for name, _ in (*_FIELDS, *_AFTER)} | {"probe", "selected"}
    return [f"label {label}" if label in taken else label for label in labels]


@lru_cache(maxsize=1)
def _crs84() -> dict[str, Any]:
    found: dict[str, Any] = pyproj.CRS.from_user_input("OGC:CRS84").to_json_dict()
    return found


def _shape(item: Item) -> Any:
    footprint = item.get("footprint")
    return None if footprint is None else shapely.geometry.shape(footprint)


def _time(text: str | None) -> datetime | None:
    """A date without an hour is its midnight."""
    if text is None:
        return None
    return datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00Z")


def _plain(name: str, found: Any) -> Any:
    if name == "warnings":
        return [warning["code"] for warning in found or ()]
    if name == "error" and found is not None:
        return f"{found['type'].rpartition(':')[2]}: {found['detail']}"
    return found.encode("utf-8", "replace").decode() if isinstance(found, str) else found
