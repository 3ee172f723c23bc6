from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model.config import ModelConfig
from tests.records import read_record
from tests.training.packed import packed
from training import bench
from training.cli import app

CONFIG = ModelConfig(
    embed_dim=24, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2, dropout=0.0,
    image_size=16, decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


def test_steps_of_both_forms_are_timed() -> None:
    record = bench.steps(CONFIG, batch_size=2, rounds=2, device=torch.device("cpu"))
    rows = {row["of"]["experts"]: row["figures"] for row in record["rows"]}
    assert rows["loop"]["times_loop"] == [1, 1, 1]
    assert rows["dense"]["step_ms"][0] > 0
    assert record["rounds"] == 2


def test_the_command_writes_its_record(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    result = CliRunner().invoke(app, ["bench", "step", "--quick", "--json", str(path)])
    assert result.exit_code == 0, result.output
    record = read_record(path, "step")
    assert [row["of"] for row in record["rows"]] == [{"experts": "dense"}, {"experts": "loop"}]
    assert "dense: step ms" in result.output


def test_a_record_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(
        app, ["bench", "step", "--quick", "--json", str(tmp_path / "taken" / "step.json")]
    )
    assert result.exit_code == 1
    assert result.output.startswith("error: [Errno ")


def test_a_folder_that_is_no_packed_set_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "loader", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path) in result.output


@pytest.mark.parametrize("json", [True, False])
def test_the_loader_is_timed(tmp_path: Path, json: bool) -> None:
    path = packed(tmp_path).path
    output = tmp_path / "loader.json"
    options = ["--json", str(output)] if json else []
    result = CliRunner().invoke(app, ["bench", "loader", str(path), "--quick", *options])
    assert result.exit_code == 0, result.output
    assert output.exists() is json
    if json:
        assert read_record(output, "loader")["rows"][0]["figures"]["tiles_per_s"][0] > 0
