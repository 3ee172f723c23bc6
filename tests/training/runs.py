"""Runs of the recipe `smoke`."""

from __future__ import annotations

import csv
from pathlib import Path

from training.pretrain import Pretraining
from training.recipe import PretrainConfig
from training.settings import load


def recipe(data: Path, *overrides: str) -> PretrainConfig:
    """The recipe on a packed set, with `key=value` overrides."""
    return load(PretrainConfig, Path("smoke"), [f"data.path={data}", *overrides])


def trained(data: Path, folder: Path, *overrides: str) -> Pretraining:
    """A finished run in a folder."""
    run = Pretraining(recipe(data, *overrides), folder)
    run.run()
    return run


def table(folder: Path, name: str = "train") -> list[dict[str, str]]:
    """The rows of a run's log, without what depends on the machine."""
    with (folder / f"{name}.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "tiles_per_s"} for row in csv.DictReader(file)]
