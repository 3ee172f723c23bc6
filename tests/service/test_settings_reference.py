"""The list of settings says what the settings class does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import settings, settings_reference
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_listed_with_what_it_takes() -> None:
    listed = settings_reference.settings()
    assert [s.variable for s in listed] == [f"LANDMOE_{name.upper()}" for name in Settings.model_fields]
    by_name = {s.variable: s for s in listed}
    workers = by_name["LANDMOE_WORKERS"]
    assert workers.values == "whole number ≥ 1 and ≤ 256"
    assert workers.default == "1"
    assert by_name["LANDMOE_LOG_FORMAT"].values == "auto, console, json"
    assert by_name["LANDMOE_ENGINE_THREADS"].default == ""


def test_the_defaults_as_written_are_taken_as_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes the "#" away from a line of .env.example changes nothing."""
    for line in settings_reference.dotenv().splitlines():
        if match := re.fullmatch(r"# (LANDMOE_\w+)=(.+)", line):
            monkeypatch.setenv(match[1], match[2])
    assert settings.load().model_dump() == Settings.model_construct().model_dump()


def test_what_is_left_out_is_not_there() -> None:
    assert "LANDMOE_WORKERS" in settings_reference.dotenv()
    assert "LANDMOE_WORKERS" not in settings_reference.dotenv(without={"LANDMOE_WORKERS"})


def test_the_files_that_list_the_settings_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
