"""How GeoParquet is laid out: groups of rows that fit into little memory, dictionaries where they pay."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.formats import Head
from service.formats.parquet import ParquetWriter
from service.http.spool import Spool

SAID = {"metadata_source": {"datetime": "request", "hour": "missing", "location": "file"}}
MODEL = {"name": "m", "version": "1", "digest": "0" * 64}


def written(items: int, shape: tuple[int, ...]) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(answered(items, shape)))


def answered(items: int, shape: tuple[int, ...]) -> bytes:
    file = Spool(None, 1 << 30, 1 << 30).share().open()
    writer = ParquetWriter(file, Head({"model": MODEL, "pooling": "any"}, shape))
    rng = np.random.default_rng(0)
    for n in range(items):
        values = rng.normal(size=shape).astype(np.float32)
        corners = [[13.0 + east, 47.0 + n / 1000] for east in (0, 1, 2, 0)]
        item: dict[str, Any] = {"index": 0, "id": f"0_r{n}_c0", "row": n, "col": 0, "embedding": values}
        item["footprint"] = {"type": "Polygon", "coordinates": [corners]}
        writer.add(
            [
                item
                | {"crs": "EPSG:32633", "units": "dn", "source": "a.tif", "warnings": [{"code": "w"}]}
                | SAID
            ]
        )
    writer.finish({})
    return file.getvalue()


@pytest.mark.parametrize(("shape", "rows"), [((144,), 1024), ((105, 144), 132)])
def test_groups_have_about_as_many_bytes(shape: tuple[int, ...], rows: int) -> None:
    file = written(rows + 5, shape)
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [rows, 5]
    assert file.read(["row"])["row"].to_pylist() == list(range(rows + 5))


def test_what_repeats_has_dictionaries_and_numbers_have_none() -> None:
    group = written(300, (144,)).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    with_dictionary = {c.path_in_schema for c in columns if c.has_dictionary_page}
    said = {f"metadata_source.{name}" for name in SAID["metadata_source"]}
    assert with_dictionary == {"source", "crs", "units", "warnings.list.element", "error", *said}


def test_pyarrow_finds_the_metadata_where_it_looks() -> None:
    file = written(3, (4,))
    at_the_end, in_schema = file.metadata.metadata, file.schema_arrow.metadata  # as of pq.read_table
    assert in_schema.keys() == at_the_end.keys() - {b"ARROW:schema"}
    assert in_schema[b"digest"] == at_the_end[b"digest"] == MODEL["digest"].encode()
    geo, early = orjson.loads(at_the_end[b"geo"]), orjson.loads(in_schema[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert early["columns"]["geometry"]["geometry_types"] == []  # not known
    assert geo["columns"]["geometry"].keys() - early["columns"]["geometry"].keys() == {"bbox"}
    assert "summary" in orjson.loads(at_the_end[b"landmoe"])


def test_a_group_takes_little_more_than_itself() -> None:
    """With a dictionary for each column it takes 24 MB."""
    usual = pa.default_memory_pool()
    assert usual.backend_name == "system"
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    try:
        written(1100, (144,))
    finally:
        pa.set_memory_pool(usual)
    assert 500_000 < counted.max_memory() < 6_000_000
