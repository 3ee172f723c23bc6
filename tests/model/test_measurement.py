from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from model.measurement import Figures, Of, Record, interleave, of, partial_of, write
from tests.records import read_record

A, B = of(contender="a", batch=1), of(contender="b", batch=1)


def test_rounds_alternate_between_all_measurements() -> None:
    order: list[str] = []

    def measure(name: str) -> Figures:
        order.append(name)
        return {"tiles_per_s": len(order)}

    done = interleave({A: lambda: measure("a"), B: lambda: measure("b")}, 3, settings={})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [list(each) for each in done] == [[A, B]] * 3
    assert [each[A]["tiles_per_s"] for each in done] == [1, 4, 5]


def test_a_record_has_median_and_spread_of_each_figure(tmp_path: Path) -> None:
    rounds = [{A: {"x": 1.0}}, {A: {"x": 5.0}, B: {"y": 2.0}}, {A: {"x": 3.0, "z": 7.0}}]
    path = tmp_path / "new" / "record.json"
    write(Record("engine", {"seconds": 1}, rounds, {"fast": "not in this bundle"}).to_json(), path)
    record = read_record(path, "engine")
    assert record["rounds"] == 3
    assert record["rows"] == [
        {"of": {"contender": "a", "batch": 1}, "figures": {"x": [3, 1, 5], "z": [7, 7, 7]}},
        {"of": {"contender": "b", "batch": 1}, "figures": {"y": [2, 2, 2]}},
    ]
    assert record["absent"] == {"fast": "not in this bundle"}


class _Interrupted:
    """Counts, and is interrupted at one of the counts."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.numbers: Iterator[int] = count(1)
        self.last = 0

    def __call__(self) -> Figures:
        self.last = next(self.numbers)
        if self.last == self.at:
            raise KeyboardInterrupt
        return {"n": self.last}


def _run(measure: _Interrupted, partial: Path, settings: dict[str, object] | None = None) -> list[float]:
    wanted: dict[Of, _Interrupted] = {A: measure}
    rounds = interleave(wanted, 3, settings=settings or {"batches": (1, 2)}, partial=partial)
    return [each[A]["n"] for each in rounds]


def test_an_interrupted_run_continues_behind_the_rounds_it_has(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        _run(_Interrupted(at=3), partial_of(path))
    assert not path.exists()
    assert _run(_Interrupted(), partial_of(path)) == [1, 2, 1]
    write(Record("x", {}, [{A: {"n": 1}}]).to_json(), path)
    assert not partial_of(path).exists()


def test_rounds_are_kept_in_a_folder_that_is_new(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    assert _run(_Interrupted(), partial_of(path)) == [1, 2, 3]


def test_a_file_that_cannot_be_written_is_found_before_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    measure = _Interrupted()
    with pytest.raises(OSError, match="taken"):
        _run(measure, partial_of(tmp_path / "taken" / "record.json"))
    assert measure.last == 0


@pytest.mark.parametrize("left", ["other settings", "cut off"])
def test_what_does_not_belong_to_the_run_is_not_continued(tmp_path: Path, left: str) -> None:
    partial = partial_of(tmp_path / "record.json")
    with pytest.raises(KeyboardInterrupt):
        _run(_Interrupted(at=3), partial, {"seconds": 5} if left == "other settings" else None)
    if left == "cut off":
        partial.write_text(partial.read_text()[:-30])
    assert _run(_Interrupted(), partial) == [1, 2, 3]
    assert len(json.loads(partial.read_text())["rounds"]) == 3
