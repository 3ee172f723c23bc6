"""What a stopped run can be resumed with: the same recipe and the same tiles, wherever they lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.training.packed import npz, packed
from tests.training.runs import recipe, trained
from training.cli import app
from training.pack import PackConfig, pack
from training.pretrain import Pretraining
from training.recipe import PretrainConfig
from training.settings import load
from training.shards import PackedSet
from training.state import StateError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("resume")).path


def changed_state(path: Path, **removed: str) -> None:
    """A state as an older release wrote it: without these keys, by the place that they have now."""
    state = torch.load(path, weights_only=True)
    learned = json.loads(state["learned"])
    for key, within in removed.items():
        del (learned[within] if within else learned)[key]
    torch.save({**state, "learned": json.dumps(learned)}, path)


def test_only_the_path_of_the_data_is_free(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", "steps=1")
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    run = Pretraining(recipe(moved, "steps=1"), tmp_path / "run")
    assert run.step == 1
    assert run.unchecked is None


def divided(folder: Path, seed: int) -> PackedSet:
    """The tiles of a folder's file, half of them for validation."""
    config = {
        "sources": [{"name": "set", "kind": "npz", "path": "set.npz"}],
        "splits": {"validation": 0.5, "test": 0, "seed": seed},
    }
    return pack(PackConfig.model_validate(config), folder, folder / "packed", workers=1, quiet=True)


def test_other_tiles_of_the_same_number_are_refused(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", "steps=1")
    npz(tmp_path / "set.npz", holes=False)
    other = divided(tmp_path, seed=0)
    with pytest.raises(StateError, match=r"other data \(packed\.shards: '\w+' in the state, '\w+' now\)"):
        Pretraining(recipe(other.path, "steps=1"), tmp_path / "run")


def test_another_division_of_the_same_tiles_is_refused(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz")
    first = divided(tmp_path, seed=0)
    trained(first.path, tmp_path / "run", "steps=1")
    before = first.column("split")
    # With another seed that gives as many tiles for training, but others.
    for seed in range(1, 50):
        now = divided(tmp_path, seed).column("split")
        if (now == 0).sum() == (before == 0).sum() and (now != before).any():
            break
    with pytest.raises(StateError, match=r"other data \(packed\.splits: '\w+' in the state, '\w+' now\)"):
        Pretraining(recipe(first.path, "steps=1"), tmp_path / "run")


def test_hours_read_otherwise_are_refused(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", "steps=1")
    other = packed(tmp_path / "tens", hours="first_digit")
    with pytest.raises(StateError, match=r"packed\.hour_convention: 'full' in the state, 'first_digit' now"):
        Pretraining(recipe(other.path, "steps=1"), tmp_path / "run")


def test_a_state_that_does_not_say_its_data_goes_on_with_a_note(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path, "steps=1")
    changed_state(tmp_path / "state.pt", packed="")
    arguments = ["pretrain", "--config", "smoke", "-o", str(tmp_path), f"data.path={data}", "steps=1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (note,) = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert "does not say on which tiles" in note
    assert Pretraining(recipe(data, "steps=1"), tmp_path).unchecked is None  # from now on it says so


def test_targets_are_absolute_unless_chosen_and_older_states_go_on(data: Path, tmp_path: Path) -> None:
    published = load(PretrainConfig, Path("published"), [f"data.path={data}"])
    assert published.loss.targets == "absolute"
    run = trained(data, tmp_path, "steps=1")
    assert run.model.targets == "absolute"
    changed_state(tmp_path / "state.pt", targets="loss")  # as in states from before there was a choice
    assert Pretraining(recipe(data, "steps=1"), tmp_path).step == 1
    with pytest.raises(StateError, match=r"loss\.targets: 'absolute' in the state, 'visible' now"):
        Pretraining(recipe(data, "steps=1", "loss.targets=visible"), tmp_path)


def test_a_state_that_does_not_fit_on_the_disk_leaves_the_one_before(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(data, run, "steps=2", "optimiser.schedule=constant", "optimiser.warm_up=1")
    before = (run / "state.pt").read_bytes()
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2); "
        "from training.cli import app; app()"
    )
    command = [sys.executable, "-c", code, "pretrain", "--config", "smoke", "-o", str(run)]
    changes = ["data.path=" + str(data), "steps=2", "optimiser.schedule=constant", "optimiser.warm_up=1"]
    ended = subprocess.run([*command, *changes], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "state.pt: cannot be written; is the disk full?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (run / "state.pt").read_bytes() == before
    assert not list(run.glob(".*.partial"))


def test_weights_that_do_not_fit_on_the_disk_are_an_error_in_a_line(tmp_path: Path) -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)); from training.cli import app; app()"
    )
    command = [sys.executable, "-c", code, "init", "--size", "XXS", "-o", str(tmp_path / "c.safetensors")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "c.safetensors: cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
