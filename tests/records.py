"""Reads what a `bench` command wrote, and holds it against the documented schema (model/measurement.py)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from model.measurement import FORMAT


def read_record(path: Path, bench: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    assert set(record) == {
        "bench", "format", "date", "machine", "versions", "settings", "rounds", "rows", "absent"
    }  # fmt: skip
    assert (record["bench"], record["format"]) == (bench, FORMAT)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["machine"]["cpus"] >= 1
    assert {"cpu", "instructions", "memory_gb", "system"} <= record["machine"].keys()
    assert {"python", "landmoe", "numpy"} <= record["versions"].keys()
    assert record["rows"]
    for row in record["rows"]:
        assert set(row) == {"of", "figures"}
        assert all(isinstance(value, str | int | bool) for value in row["of"].values())
        assert row["figures"]
        for name, (median, low, high) in row["figures"].items():
            assert low <= median <= high, name
    assert all(isinstance(reason, str) and reason for reason in record["absent"].values())
    assert not path.with_name(path.name + ".partial").exists()
    return record
