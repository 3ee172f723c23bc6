"""GeoParquet answers → one GeoParquet file, or one array of probabilities."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import parquet

from service.clients.merge import Item, Piece, all_failed, count
from service.clients.npy_file import NpyFile
from service.formats.parquet import REPETITIVE, label_columns, rows_per_group


class ParquetMerger:
    """Rows of all answers under the schema with most columns; what the file says of itself is made of all.

    In groups of as many rows as the service writes, however few an answer has.
    """

    wire_format = "parquet"

    def __init__(self) -> None:
        self._writer: Any = None  # Arrow's
        self._schema: Any = None
        self._group = 1
        self._waiting: list[pa.Table] = []  # less than a group
        self._geo: dict[str, Any] = {}
        self._landmoe: dict[str, Any] = {}
        self._metadata: dict[str, str] = {}
        self._summary: dict[str, int] = {}

    def begin(self, file: IO[bytes], bodies: Iterator[bytes]) -> None:
        """See `Merger.begin`."""
        # Replicas of another version may have other columns.
        schemas = (parquet.read_schema(io.BytesIO(body)) for body in bodies)
        described = max(schemas, key=lambda schema: len(schema.names))
        self._schema = described.remove_metadata()
        self._group = rows_per_group(_numbers(self._schema))
        self._writer = parquet.ParquetWriter(
            file, described, compression="zstd", store_schema=True, use_dictionary=REPETITIVE
        )

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if not isinstance(piece, bytes):
            count(self._summary, all_failed(piece))
            if self._writer is not None:
                self._write(_failed_rows(piece, self._schema))
            return piece
        file = parquet.ParquetFile(io.BytesIO(piece))
        table = file.read(use_threads=False).replace_schema_metadata(None)
        failed = _errors(table, indices)
        if self._writer is not None:
            numbers = pa.array([indices[i] for i in table["index"].to_pylist()], pa.int32())
            position = table.schema.get_field_index("index")
            self._write(
                _with(table.set_column(position, table.schema.field(position), numbers), self._schema)
            )
        self._note(file.metadata.metadata)
        return failed

    def finish(self) -> None:
        """See `Merger.finish`."""
        if self._writer is None:
            return
        self._write_waiting(sum(map(len, self._waiting)))
        landmoe = self._landmoe | {"summary": self._summary}
        self._writer.add_key_value_metadata(
            self._metadata
            | {"geo": orjson.dumps(self._geo).decode(), "landmoe": orjson.dumps(landmoe).decode()}
        )
        self._writer.close()

    def _write(self, rows: pa.Table) -> None:
        """Writes groups that are whole."""
        self._waiting.append(rows)
        waiting = sum(map(len, self._waiting))
        self._write_waiting(waiting - waiting % self._group)

    def _write_waiting(self, rows: int) -> None:
        if rows:
            table = pa.concat_tables(self._waiting)
            self._waiting = [table.slice(rows)]
            self._writer.write_table(table.slice(0, rows), row_group_size=self._group)

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
        self._file: NpyFile | None = None

    def begin(self, file: IO[bytes], bodies: Iterator[bytes]) -> None:
        """See `Merger.begin`."""
        self._file = NpyFile(file, (len(_labels(parquet.read_metadata(io.BytesIO(next(bodies))))),))

    def add(self, piece: Piece, indices: Sequence[int]) -> list[Item]:
        """See `Merger.add`."""
        if not isinstance(piece, bytes):
            if self._file is not None:
                self._file.add(np.full((len(piece), *self._file.shape), np.nan, np.float32))
            return piece
        file = parquet.ParquetFile(io.BytesIO(piece))
        table = file.read(use_threads=False)
        if self._file is not None:
            columns = [table[name].to_numpy() for name in _labels(file.metadata)]  # null becomes NaN
            self._file.add(np.stack(columns, axis=1).astype(np.float32))
        return _errors(table, indices)

    def finish(self) -> None:
        """See `Merger.finish`."""
        if self._file is not None:
            self._file.finish()


def _labels(metadata: parquet.FileMetaData) -> list[str]:
    """The columns of probabilities."""
    return label_columns(orjson.loads(metadata.metadata[b"emb"])["labels"])


def _numbers(schema: pa.Schema) -> int:
    """How many a row has, about."""
    return sum(f.type.list_size if pa.types.is_fixed_size_list(f.type) else 1 for f in schema)


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
