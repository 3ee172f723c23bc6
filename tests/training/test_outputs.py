"""Outputs that cannot be written are one line, not a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.packed import packed
from training.cli import app


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "--size", "XXS", "-o", "taken"),
        ("init", "--size", "XXS", "-o", "file/a.safetensors"),
        ("pack", "set.npz", "-o", "file"),
        ("pretrain", "--config", "smoke", "-o", "file", "data.path=packed"),
    ],
)
def test_an_output_in_the_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    packed(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith("error: ")
    assert "file" in last or "taken" in last
