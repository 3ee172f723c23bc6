"""GeoParquet answers → one GeoParquet file, or one array of probabilities."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from service.clients.merge import Item, Piece, all_failed, count, npy
from service.formats.parquet import label_columns


class ParquetMerger:
    """Rows of all answers under the schema with most columns; what the file says of itself is made of all."""

    wire_format = "parquet"

    def __init__(self) -> None:
        self._tables: list[pa.Table | list[Item]] = []
        self._geo: dict[str, Any] = {}
        self._landmoe: dict[str, Any] = {}
        self._metadata: dict[str, str] = {}
        self._summary: dict[str, int] = {}

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if not isinstance(piece, bytes):
            count(self._summary, all_failed(piece))
            self._tables.append(piece)
            return piece
        table = parquet.read_table(io.BytesIO(piece))
        failed = _errors(table, indices)
        numbers = pa.array([indices[i] for i in table["index"].to_pylist()], pa.int32())
        position = table.schema.get_field_index("index")
        table = table.set_column(position, table.schema.field("index"), numbers)
        self._tables.append(table.replace_schema_metadata(None))
        self._note(parquet.read_metadata(io.BytesIO(piece)).metadata)
        return failed

    def finish(self) -> bytes:
        """See `Merger.finish`."""
        # Replicas of another version may have other columns.
        schemas = [table.schema for table in self._tables if isinstance(table, pa.Table)]
        schema = max(schemas, key=lambda schema: len(schema.names))
        buffer = io.BytesIO()
        with parquet.ParquetWriter(buffer, schema, compression="zstd", store_schema=True) as writer:
            for table in self._tables:
                rows = table if isinstance(table, pa.Table) else _failed_rows(table, schema)
                writer.write_table(_with(rows, schema))
            landmoe = self._landmoe | {"summary": self._summary}
            writer.add_key_value_metadata(
                self._metadata
                | {"geo": orjson.dumps(self._geo).decode(), "landmoe": orjson.dumps(landmoe).decode()}
            )
        return buffer.getvalue()

    def _note(self, metadata: dict[bytes, bytes]) -> None:
        """Adds to the extent, the kinds of geometry and the counts."""
        texts = {key.decode(): text.decode() for key, text in metadata.items() if key != b"ARROW:schema"}
        geo, landmoe = orjson.loads(texts.pop("geo")), orjson.loads(texts.pop("landmoe"))
        count(self._summary, landmoe.get("summary", {}))
        if not self._geo:
            self._geo, self._landmoe, self._metadata = geo, landmoe, texts
            return
        column, new = self._geo["columns"]["geometry"], geo["columns"]["geometry"]
        column["geometry_types"] = sorted({*column["geometry_types"], *new["geometry_types"]})
        boxes = [box for box in (column.get("bbox"), new.get("bbox")) if box is not None]
        if boxes:
            sides = list(zip(*boxes, strict=True))
            column["bbox"] = [*map(min, sides[:2]), *map(max, sides[2:])]


class ProbabilitiesMerger:
    """NPY of /classify: float32 (N, labels) in the order of the probe's labels; NaN where a tile failed.

    Asked for as GeoParquet, which says what failed and why.
    """

    wire_format = "parquet"

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32] | int] = []

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if not isinstance(piece, bytes):
            self._parts.append(len(piece))
            return piece
        table = parquet.read_table(io.BytesIO(piece))
        labels = orjson.loads(parquet.read_metadata(io.BytesIO(piece)).metadata[b"emb"])["labels"]
        columns = [table[name].to_numpy() for name in label_columns(labels)]  # null becomes NaN
        self._parts.append(np.stack(columns, axis=1).astype(np.float32))
        return _errors(table, indices)

    def finish(self) -> bytes:
        """See `Merger.finish`."""
        width = next(part.shape[1] for part in self._parts if not isinstance(part, int))
        parts = [np.full((p, width), np.nan, np.float32) if isinstance(p, int) else p for p in self._parts]
        return npy(np.concatenate(parts))


def _errors(table: pa.Table, indices: Sequence[int]) -> list[Item]:
    """The items that failed, with their index among all tiles."""
    rows = zip(*(table[name].to_pylist() for name in ("index", "id", "error")), strict=True)
    return [
        {"index": indices[index], "id": tile_id, "error": _problem(text)}
        for index, tile_id, text in rows
        if text is not None
    ]


def _with(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with exactly the columns of a schema; null where it has none."""
    if table.schema.equals(schema):
        return table
    names = set(table.schema.names)
    columns = [
        table[field.name] if field.name in names else pa.nulls(len(table), field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _failed_rows(items: Sequence[Item], schema: pa.Schema) -> pa.Table:
    known: dict[str, list[Any]] = {
        "index": [item["index"] for item in items],
        "id": [item["id"] for item in items],
        "source": [item.get("source") for item in items],
        "error": [f"{i['error']['type'].rpartition(':')[2]}: {i['error']['detail']}" for i in items],
    }
    nothing = [None] * len(items)
    columns = [pa.array(known.get(field.name, nothing), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _problem(text: str) -> dict[str, Any]:
    code, _, detail = text.partition(": ")
    return {"type": code, "detail": detail}
