"""The tables of a run go on after whatever stopped it."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.run_log import RunLog
from training.state import StateError


def test_a_folder_is_one_runs_at_a_time(tmp_path: Path) -> None:
    first = RunLog(tmp_path, 0)
    first.write("train", 1, {"total": 1.0})
    before = (tmp_path / "train.csv").read_text()
    with pytest.raises(StateError, match="another process is at this run"):
        RunLog(tmp_path, 0)
    assert (tmp_path / "train.csv").read_text() == before
    first.close()
    RunLog(tmp_path, 1).close()


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ("", []),  # the disk was full
        ("step,lo", []),
        ("step,loss\n", []),
        ("step,loss\n1,0.5\n2", ["1,0.5"]),  # the beginning of step 20
        ("step,loss\n1,0.5\n2,0.4\n3,0.3\n", ["1,0.5", "2,0.4"]),
    ],
)
def test_what_was_cut_off_is_written_again(tmp_path: Path, left: str, kept: list[str]) -> None:
    path = tmp_path / "train.csv"
    path.write_text(left)
    log = RunLog(tmp_path, 2)
    log.write("train", 3, {"loss": 0.25})
    log.close()
    assert path.read_text().splitlines() == ["step,loss", *kept, "3,0.25"]
