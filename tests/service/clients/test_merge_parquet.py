"""GeoParquet of replicas of two versions, as one file."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.clients.merge_parquet import ParquetMerger
from tests.service.formats.test_parquet import answered, written


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_column_that_only_some_have_is_null_for_the_others(first: str) -> None:
    new = written(3, (144,))
    table = new.read()
    pieces = {"new": _file(table, new), "old": _file(table.drop_columns(["metadata_source"]), new)}
    merger, out = ParquetMerger(), io.BytesIO()
    merger.begin(out, iter(pieces.values()))
    for name in sorted(pieces, key=lambda name: name != first):
        assert merger.add(pieces[name], [0]) == []
    merger.finish()
    table = pq.read_table(out)
    known = [said is not None for said in table["metadata_source"].to_pylist()]
    assert known == ([False] * 3 + [True] * 3 if first == "old" else [True] * 3 + [False] * 3)
    assert table["row"].to_pylist() == [0, 1, 2] * 2


def test_the_metadata_are_where_those_of_an_answer_are() -> None:
    merger, out = ParquetMerger(), io.BytesIO()
    pieces = [answered(2, (4,)), answered(3, (4,))]
    merger.begin(out, iter(pieces))
    for number, piece in enumerate(pieces):
        merger.add(piece, [number])
    merger.finish()
    table = pq.read_table(out)
    assert len(table) == 5
    assert table.schema.metadata == pq.read_schema(io.BytesIO(pieces[0])).metadata
    assert b"geo" in table.schema.metadata


def _file(table: pa.Table, like: pq.ParquetFile) -> bytes:
    table = table.replace_schema_metadata(None)
    said = {key: text for key, text in like.metadata.metadata.items() if key != b"ARROW:schema"}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(said)
    return buffer.getvalue()


def test_rows_of_small_answers_are_written_in_groups_as_they_come() -> None:
    """A reader takes 2,000,000 numbers as fast as a few; memory does not hold what is written."""
    one = written(32, (105, 144))
    body = _file(one.read(), one)
    merger, out = ParquetMerger(), io.BytesIO()
    merger.begin(out, iter([body]))
    for number in range(9):
        merger.add(body, [number])
    assert out.tell() > 2 * 132 * 100  # groups are there before the end
    merger.finish()
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [132, 132, 24]
    assert file.read(columns=["index"])["index"].to_pylist() == [n for n in range(9) for _ in range(32)]
    group = file.metadata.row_group(0)
    columns = {(c := group.column(i)).path_in_schema: c.has_dictionary_page for i in range(group.num_columns)}
    assert columns["source"]
    assert not columns["embedding.list.element"]
