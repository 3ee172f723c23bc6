from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model import checkpoint
from tests.training.packed import packed
from tests.training.runs import recipe, table, trained
from training.cli import app
from training.loss import Losses
from training.pretrain import NonFiniteLossError, Pretraining
from training.shards import PackError, open_packed
from training.state import StateError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("pretrain")).path


def weights(run: Pretraining) -> list[torch.Tensor]:
    return [*run.model.parameters(), *run.evaluated.parameters()]


def test_a_run_leaves_logs_and_checkpoints_that_load(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3", "4", "5", "6"]
    validation = table(tmp_path, "validation")
    assert [row["step"] for row in validation] == ["3", "6"]
    assert list((tmp_path / "tensorboard").glob("events*"))
    last = checkpoint.load(tmp_path / "last.safetensors")
    assert last.info["trained"] is True
    assert last.info["step"] == last.info["steps"] == 6
    assert last.info["recipe"]["optimiser"]["learning_rate"] == 1e-3
    assert str(data) not in str(last.info)
    assert last.info["packed"] == open_packed(data).identity()
    assert last.preprocessing.nodata_fill == "band_mean"
    assert last.preprocessing.missing_metadata_trained
    for a, b in zip(last.model.parameters(), run.evaluated.parameters(), strict=True):
        assert torch.equal(a, b)
    best = checkpoint.load(tmp_path / "best.safetensors")
    lowest = min(float(row["masked"]) for row in validation)
    assert best.info["best_validation_masked"] == pytest.approx(lowest)


def test_learning_lowers_the_loss(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path, "steps=40", "optimiser.learning_rate=0.003", "run.validate_every=10")
    masked = [float(row["masked"]) for row in table(tmp_path, "validation")]
    assert masked[-1] < 0.5 * masked[0]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("accumulate=2", "optimiser.ema=null", "batch_size=4"),
        ("loss.targets=visible",),
        ("loss.targets=kriged",),
    ],
)
def test_a_resumed_run_equals_one_that_never_stopped(
    data: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    constant = ("optimiser.schedule=constant", "optimiser.warm_up=2", "steps=8", *options)
    through = trained(data, tmp_path / "through", *constant)

    class Stopping(Pretraining):
        def _update(self, micro):  # type: ignore[no-untyped-def]
            if self.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)  # as in the middle of a step
            return super()._update(micro)

    first = Stopping(recipe(data, *constant), tmp_path / "resumed")
    first.run()
    assert (first.stopped_by, first.step) == ("SIGTERM", 5)
    second = trained(data, tmp_path / "resumed", *constant)
    for name in ("train", "validation"):
        assert table(tmp_path / "resumed", name) == table(tmp_path / "through", name)
    assert all(torch.equal(a, b) for a, b in zip(weights(through), weights(second), strict=True))


def test_rows_of_steps_that_are_done_again_are_not_doubled(data: Path, tmp_path: Path) -> None:
    class Dying(Pretraining):
        def _update(self, micro):  # type: ignore[no-untyped-def]
            if self.step == 5:  # after the save of step 3, without another one
                raise MemoryError
            return super()._update(micro)

    with pytest.raises(MemoryError):
        Dying(recipe(data), tmp_path).run()
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3", "4", "5"]
    run = Pretraining(recipe(data), tmp_path)
    assert run.step == 3
    run.run()
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3", "4", "5", "6"]


def test_the_progress_says_how_long_the_rest_takes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(data, tmp_path, "steps=3", "run.log_every=1")
    lines = [line for line in capsys.readouterr().out.splitlines() if " train: " in line]
    left = [re.search(r"  left (\d+:\d\d:\d\d)$", line) for line in lines]
    assert len(left) == 3
    assert all(left)
    assert left[-1] is not None
    assert left[-1][1] == "0:00:00"


def test_a_finished_run_stays_finished(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path)
    before = (tmp_path / "train.csv").read_bytes()
    assert trained(data, tmp_path).step == 6
    assert (tmp_path / "train.csv").read_bytes() == before


def test_constant_schedule_goes_on_for_longer(data: Path, tmp_path: Path) -> None:
    constant = ("optimiser.schedule=constant", "optimiser.warm_up=1")
    run = Pretraining(recipe(data, *constant, "steps=20"), tmp_path)
    run.progress.step = 9
    run.save()
    assert trained(data, tmp_path, *constant, "steps=12").step == 12  # the decay begins at step 9
    with pytest.raises(StateError, match=r"at step 12 of 12; with 40 steps the rate of step 10"):
        Pretraining(recipe(data, *constant, "steps=40"), tmp_path)


def test_another_configuration_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path, "steps=1")
    for change, named in (
        ("optimiser.weight_decay=0.3", r"optimiser\.weight_decay: 0\.05 in the state, 0\.3 now"),
        ("batch_size=9", r"batch_size: 8 in the state, 9 now"),
        ("model.embed_dim=48", r"model\.embed_dim: 24 in the state, 48 now"),
    ):
        with pytest.raises(StateError, match=named):
            Pretraining(recipe(data, "steps=1", change), tmp_path)
    Pretraining(recipe(data, "steps=1", "run.log_every=7"), tmp_path)  # of no matter to what is learned


@pytest.mark.parametrize("damage", ["cut", "foreign", "pickle"])
def test_a_damaged_state_is_refused(data: Path, tmp_path: Path, damage: str) -> None:
    trained(data, tmp_path, "steps=1")
    path = tmp_path / "state.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        torch.save({"epoch": 3}, path)
    else:
        path.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(StateError, match=r"state\.pt"):
        Pretraining(recipe(data, "steps=1"), tmp_path)


def test_a_non_finite_loss_stops_with_the_state_before_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pretraining(recipe(data), tmp_path)
    losses = run._losses

    def diverging(batch: Any) -> Losses:
        found = losses(batch)
        return found._replace(total=found.total * float("nan")) if run.step == 4 else found

    monkeypatch.setattr(run, "_losses", diverging)
    with pytest.raises(NonFiniteLossError, match=r"step 4 .*total nan"):
        run.run()
    saved = torch.load(tmp_path / "non-finite-step-4.pt", weights_only=True)
    assert saved["step"] == 4
    assert all(torch.isfinite(t).all() for t in saved["model"].values())
    assert Pretraining(recipe(data), tmp_path).step == 3  # the last regular save


def test_gradients_that_are_not_finite_stop_before_they_reach_the_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pretraining(recipe(data, "steps=5"), tmp_path)
    losses = run._losses

    def diverging(batch: Any) -> Losses:
        found = losses(batch)
        root = (found.total - found.total.detach()).sqrt()  # 0, with an infinite slope
        return found._replace(total=found.total + root) if run.step == 4 else found

    monkeypatch.setattr(run, "_losses", diverging)
    with pytest.raises(NonFiniteLossError, match=r"the loss of step 4 has gradients that are not finite"):
        run.run()
    saved = torch.load(tmp_path / "non-finite-step-4.pt", weights_only=True)
    assert all(torch.isfinite(t).all() for t in saved["model"].values())
    assert Pretraining(recipe(data, "steps=5"), tmp_path).step == 3  # not taken for finished


def test_masks_and_dropout_depend_on_the_seed_alone(data: Path, tmp_path: Path) -> None:
    one, same, other = (trained(data, tmp_path / n, f"seed={s}") for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(same), strict=True))
    assert table(tmp_path / "a") != table(tmp_path / "c")
    assert other.step == 6


def test_bf16_trains_too(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path, "run.precision=bf16", "steps=2")
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert all(np.isfinite(float(row["total"])) for row in table(tmp_path))


def test_without_validation_places_it_says_how_to_go_on(tmp_path: Path) -> None:
    one = packed(tmp_path / "one", validation=0, test=0).path
    with pytest.raises(PackError, match=r"split 'validation'.*data\.validation_split=null"):
        Pretraining(recipe(one), tmp_path / "run")
    run = trained(one, tmp_path / "run", "data.validation_split=null", "steps=2")
    assert run.step == 2
    assert not (tmp_path / "run/best.safetensors").exists()
    assert checkpoint.load(tmp_path / "run/last.safetensors").info["best_validation_masked"] is None


def test_command_reports_configuration_errors(data: Path, tmp_path: Path) -> None:
    arguments = ["pretrain", "--config", "smoke", "-o", str(tmp_path), f"data.path={data}"]
    result = CliRunner().invoke(app, [*arguments, "optimiser.lr=3"])
    assert result.exit_code == 1
    assert "optimiser.lr: unknown key" in result.output
    result = CliRunner().invoke(app, [*arguments, f"data.path={tmp_path}"])
    assert result.exit_code == 1
    assert "not a packed set" in result.output


def test_two_processes_train_one_network(data: Path, tmp_path: Path) -> None:
    options = [f"data.path={data}", "run.devices=2", "accumulate=2", "batch_size=4"]
    command = [sys.executable, "-m", "training.cli", "pretrain", "--config", "smoke", "-o", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3", "4", "5", "6"]
    assert "2 x cpu" in done.stdout
    # One process that does not agree on the steps, sums or saves would leave another number of them.
    assert checkpoint.load(tmp_path / "last.safetensors").info["step"] == 6
    single = recipe(data, "accumulate=2", "batch_size=4")
    with pytest.raises(StateError, match="world: 2 in the state, 1 now"):
        Pretraining(single, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_command_with_everything_saved(
    data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    options = [f"data.path={data}", "steps=100000", "run.save_every=100000", "run.validate_every=100000"]
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "pretrain",
        "--config",
        "smoke",
        "-o",
        str(tmp_path),
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "train.csv").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "the run did not start"
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped by {number.name} at step" in output
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] >= 1
    assert checkpoint.load(tmp_path / "last.safetensors").info["step"] == saved["step"]
