"""A decoder that is trained on a finished encoder: neither its weights nor its preprocessing change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model import checkpoint
from model.bands import STD
from model.checkpoint import CheckpointError
from model.config import SIZES, Preprocessing
from tests.training.packed import packed
from tests.training.runs import recipe, trained
from training.cli import app
from training.pretrain import Pretraining
from training.recipe import PretrainConfig
from training.settings import load
from training.shards import PackError
from training.state import StateError

# As of imported published weights, and with statistics of its own.
OTHER = Preprocessing(
    mean=tuple(9_000.0 + 500 * i for i in range(7)), nodata_fill="as_is", hour_convention="first_digit"
)
UNTOLD = """
name: decoder
model: {embed_dim: 24, depth: 3, first_hidden: 12, last_hidden: 6, num_heads: 4, num_groups: 2,
        decoder_dim: 24, decoder_depth: 1, decoder_heads: 4, decoder_groups: 2, decoder_hidden: 12}
encoder: ???
data:
  path: ???
optimiser: {learning_rate: 1.0e-3}
loss: {targets: kriged, ignore_invalid: true}
batch_size: 8
steps: 2
run: {accelerator: cpu, precision: "32", threads: 1}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("full")).path


@pytest.fixture(scope="module")
def tens_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("first_digit"), hours="first_digit").path


@pytest.fixture
def other(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "other.safetensors"
    checkpoint.save(path, checkpoint.initialise(recipe(data).architecture, 5, OTHER))
    return path


def untold(data: Path, encoder: Path, folder: Path, *overrides: str) -> PretrainConfig:
    """A recipe that says nothing of what the encoder decides."""
    file = folder / "decoder.yaml"
    file.write_text(UNTOLD)
    return load(PretrainConfig, file, [f"data.path={data}", f"encoder={encoder}", *overrides])


def test_a_decoder_is_trained_on_an_encoder_that_stays(data: Path, tmp_path: Path) -> None:
    first = trained(data, tmp_path / "first", "optimiser.ema=null")
    last = tmp_path / "first" / "last.safetensors"
    options = (f"encoder={last}", "loss.targets=kriged", "optimiser.ema=null", "steps=4")
    second = trained(data, tmp_path / "second", *options)
    kept = first.model.encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in second.model.encoder.state_dict().items())
    assert not torch.equal(first.model.decoder_embed.weight, second.model.decoder_embed.weight)
    found = checkpoint.load(tmp_path / "second" / "last.safetensors")
    assert found.model.targets == "kriged"
    assert found.info["encoder"]["step"] == 6
    assert str(tmp_path) not in str(found.info)

    again = Pretraining(recipe(data, *options), tmp_path / "second")
    assert again.step == 4
    other = trained(data, tmp_path / "other", "seed=1", "steps=1")
    assert other.step == 1
    with pytest.raises(StateError, match=r"encoder: '[0-9a-f]{64}' in the state, '[0-9a-f]{64}' now"):
        Pretraining(
            recipe(data, f"encoder={tmp_path / 'other' / 'last.safetensors'}", *options[1:]),
            tmp_path / "second",
        )


def test_a_decoder_starts_at_the_guess_that_its_targets_are_relative_to(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path, "steps=1")
    last = tmp_path / "last.safetensors"
    same = Pretraining(recipe(data, f"encoder={last}"), tmp_path / "same")
    assert torch.equal(same.model.decoder_pred.weight, checkpoint.load(last).model.decoder_pred.weight)
    other = Pretraining(recipe(data, f"encoder={last}", "loss.targets=kriged"), tmp_path / "other")
    assert not other.model.decoder_pred.weight.any()


def test_an_encoder_of_another_architecture_is_refused(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "xxs.safetensors"
    checkpoint.save(path, checkpoint.initialise(SIZES["XXS"], 0))
    with pytest.raises(CheckpointError, match="the encoder to start from is ModelConfig"):
        Pretraining(recipe(data, f"encoder={path}"), tmp_path / "run")


def test_the_encoders_preprocessing_is_taken_over(tens_digits: Path, other: Path, tmp_path: Path) -> None:
    run = Pretraining(untold(tens_digits, other, tmp_path), tmp_path / "run")
    assert run.preprocessing == OTHER
    assert run.model.encoder.mean.flatten().tolist() == list(OTHER.mean)
    run.run()
    found = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert found.preprocessing == OTHER
    assert found.info["recipe"]["data"]["nodata_fill"] == "as_is"
    kept = checkpoint.load(other).model.encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in found.model.encoder.state_dict().items())


def test_invalid_pixels_are_fed_as_the_encoder_knows_them(data: Path, tmp_path: Path) -> None:
    own = Preprocessing(mean=OTHER.mean, std=STD, nodata_fill="band_mean", missing_metadata_trained=True)
    path = tmp_path / "own.safetensors"
    checkpoint.save(path, checkpoint.initialise(recipe(data).architecture, 5, own))
    run = Pretraining(untold(data, path, tmp_path), tmp_path / "run")
    assert run.preprocessing == own  # also that missing metadata are known, though this recipe drops none
    batches = [run.batches.make(n) for n in range(3)]
    holes = [batch.dn[:, 2][~batch.valid] for batch in batches]
    assert sum(map(len, holes)) > 0
    assert all((hole == OTHER.mean[2]).all() for hole in holes)


def test_a_recipe_that_contradicts_the_encoder_is_refused(data: Path, tmp_path: Path) -> None:
    options = ("data.nodata_fill=as_is", "data.drop_metadata=0", "data.drop_field=0", "steps=1")
    trained(data, tmp_path / "enc", *options)
    last = tmp_path / "enc" / "last.safetensors"
    arguments = ["pretrain", "--config", "smoke", "-o", str(tmp_path / "dec"), f"data.path={data}"]
    result = CliRunner().invoke(app, [*arguments, f"encoder={last}"])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert "last.safetensors: the encoder stays as it was trained" in line
    assert "data.nodata_fill is band_mean and was as_is" in line
    assert "data.drop_metadata is 0.3 and missing metadata were never seen" in line
    assert "data.drop_field is 0.2 and missing metadata were never seen" in line
    assert not (tmp_path / "dec").exists()
    agreeing = trained(data, tmp_path / "agreeing", f"encoder={last}", *options)
    assert agreeing.preprocessing == checkpoint.load(last).preprocessing


def test_data_with_hours_that_the_encoder_reads_otherwise_are_refused(
    data: Path, other: Path, tmp_path: Path
) -> None:
    with pytest.raises(PackError, match=r"hour_convention full, the network was trained with first_digit"):
        Pretraining(untold(data, other, tmp_path), tmp_path / "run")
