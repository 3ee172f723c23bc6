"""GeoParquet of replicas of two versions, as one file."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.clients.merge_parquet import ParquetMerger
from tests.service.formats.test_parquet import written


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_column_that_only_some_have_is_null_for_the_others(first: str) -> None:
    new = written(3, (144,))
    table = new.read()
    pieces = {"new": _file(table, new), "old": _file(table.drop_columns(["metadata_source"]), new)}
    merger = ParquetMerger()
    for name in sorted(pieces, key=lambda name: name != first):
        assert merger.add(pieces[name], [0]) == []
    table = pq.read_table(io.BytesIO(merger.finish()))
    known = [said is not None for said in table["metadata_source"].to_pylist()]
    assert known == ([False] * 3 + [True] * 3 if first == "old" else [True] * 3 + [False] * 3)
    assert table["row"].to_pylist() == [0, 1, 2] * 2


def _file(table: pa.Table, like: pq.ParquetFile) -> bytes:
    table = table.replace_schema_metadata(None)
    said = {key: text for key, text in like.metadata.metadata.items() if key != b"ARROW:schema"}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(said)
    return buffer.getvalue()
