"""What validation measures during pretraining: the same masks every time, in the unit of the targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.moe_mae import Reconstruction
from tests.training.packed import packed
from tests.training.runs import recipe, table, trained
from training.loss import value_weights
from training.pretrain import Pretraining
from training.state import StateError
from training.validation import validate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("validation")).path


def test_relative_targets_are_validated_in_z_scores_and_kept_in_the_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    options = ("loss.targets=visible", "steps=30", "optimiser.learning_rate=0.003", "run.validate_every=10")
    trained(data, tmp_path, *options)
    rows = table(tmp_path, "validation")
    assert float(rows[0]["ratio"]) < 2  # begins about the mean of the visible pixels, whatever their level
    assert float(rows[-1]["masked"]) < float(rows[0]["masked"])
    last = checkpoint.load(tmp_path / "last.safetensors")
    assert last.model.targets == last.info["recipe"]["loss"]["targets"] == "visible"
    with pytest.raises(StateError, match=r"loss\.targets: 'visible' in the state, 'absolute' now"):
        Pretraining(recipe(data, "loss.targets=absolute", *options[1:]), tmp_path)


def test_validation_sees_the_same_masks_every_time(data: Path, tmp_path: Path) -> None:
    run = Pretraining(recipe(data), tmp_path)
    assert run.validation is not None
    loss = run.config.loss
    options = {"batch_size": 5, "mask_ratio": 0.75, "device": torch.device("cpu"), "loss": loss}
    first = validate(run.model, run.validation, **options)  # type: ignore[arg-type]
    assert validate(run.model, run.validation, **options) == first  # type: ignore[arg-type]
    assert run.model.training
    bands = [first[f"SR_B{i}"] for i in range(1, 8)]
    assert first["ratio"] == pytest.approx(first["masked"] / first["band_mean"])
    assert min(bands) < first["masked"] < max(bands)
    run.validation._b1_estimated[:] = True  # of no tile is the coastal band measured
    unmeasured = validate(run.model, run.validation, **options)  # type: ignore[arg-type]
    assert np.isnan(unmeasured["SR_B1"])
    assert np.isfinite(unmeasured["masked"])


@pytest.mark.parametrize("ignore", ["true", "false"])
def test_normalised_patches_are_validated_in_their_unit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignore: str
) -> None:
    """A network that hits every target that it is trained on makes no error."""
    options = (
        "loss.normalise_patches=true",
        f"loss.ignore_invalid={ignore}",
        "optimiser.ema=null",
        "steps=1",
    )
    run = Pretraining(recipe(data, *options), tmp_path)
    assert run.validation is not None
    run.validation._b1_estimated[:] = False
    forward = run.model.forward

    def perfect(
        dn: torch.Tensor, encodings: torch.Tensor, noise: torch.Tensor, ratio: float, valid: torch.Tensor
    ) -> Reconstruction:
        found = forward(dn, encodings, noise, ratio, valid)
        kept = value_weights(valid, torch.zeros(len(dn), dtype=torch.bool), 7, 4)
        counted = kept if ignore == "true" else torch.ones_like(kept)
        mean = (found.target * counted).sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp_min(1)
        variance = ((found.target - mean) ** 2 * counted).sum(-1, keepdim=True)
        variance = variance / counted.sum(-1, keepdim=True).clamp_min(1)
        return found._replace(predicted=(found.target - mean) / (variance + 1e-6).sqrt())

    monkeypatch.setattr(run.model, "forward", perfect)
    run.run()
    (row,) = table(tmp_path, "validation")
    assert float(row["masked"]) < 1e-6
    assert float(row["band_mean"]) > 1e-3
