"""The tables of a run go on after whatever stopped it."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.run_log import RunLog


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
