"""What pictures are made of, without looking at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import checkpoint
from tests.training.scenery import PREPROCESSING, TINY, eurosat
from training import figures
from training.heldout import EvaluationError


def test_a_folder_that_is_no_runs_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    eurosat(tmp_path / "data/eurosat.npz")
    found = checkpoint.initialise(TINY, 3, PREPROCESSING)
    with pytest.raises(EvaluationError, match=r"gone has no train\.csv"):
        figures.draw(found, tmp_path / "data", tmp_path / "out", run=tmp_path / "gone")
    assert not (tmp_path / "out").exists()


def test_more_classes_than_colours_are_told_apart() -> None:
    assert len({figures.style(number) for number in range(100)}) == 100
