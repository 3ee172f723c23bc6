from __future__ import annotations

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.moe_mae import MoEMAE, Reconstruction
from model.published import import_reference, read_config
from tests.model.networks import GOLDEN
from training.loss import LossConfig, pretraining_losses, value_weights

CONFIG = ModelConfig(
    embed_dim=16, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2,
    image_size=8, patch_size=4, decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


@pytest.fixture
def result() -> Reconstruction:
    torch.manual_seed(0)
    model = MoEMAE(CONFIG).eval()
    dn = torch.randint(5_000, 20_000, (3, 7, 8, 8))
    with torch.inference_mode():
        found: Reconstruction = model(dn, torch.zeros(3, 4, 2))
    return found


def weights(valid: torch.Tensor, estimated: list[bool] | None = None) -> torch.Tensor:
    return value_weights(valid, torch.tensor(estimated or [False] * len(valid)), 7, 4)


def test_with_everything_measured_it_is_the_published_loss() -> None:
    stem = GOLDEN / "reference_tiny"
    model = import_reference(stem.with_suffix(".pth"), read_config(stem.with_suffix(".json"))).model
    with np.load(stem.with_suffix(".npz")) as file:
        reference = dict(file)
    dn = torch.from_numpy(reference["dn"].astype(np.int32))
    with torch.inference_mode():
        result = model(dn, torch.from_numpy(reference["metadata"]), torch.from_numpy(reference["mask_noise"]))
    published = [float(reference[name]) for name in ("loss_masked", "loss_unmasked", "moe_loss")]
    for counted in (None, weights(torch.ones(len(dn), 40, 40, dtype=torch.bool))):
        total, *terms = map(float, pretraining_losses(result, counted, LossConfig()))
        assert terms == pytest.approx(published, rel=2e-5)
        assert total == pytest.approx(np.dot((1, 0.1, 0.5), terms), rel=1e-6)


def test_invalid_pixels_do_not_count(result: Reconstruction) -> None:
    valid = torch.ones(3, 8, 8, dtype=torch.bool)
    valid[1, :5, 2] = False
    counted = weights(valid)
    before = pretraining_losses(result, counted, LossConfig())
    spoiled = MoEMAE(CONFIG).patchify((~valid)[:, None].expand(-1, 7, -1, -1).float() * 1e3)
    after = pretraining_losses(result._replace(target=result.target + spoiled), counted, LossConfig())
    assert [float(a) for a in after] == pytest.approx([float(b) for b in before], rel=1e-6)
    without = pretraining_losses(result._replace(target=result.target + spoiled), None, LossConfig())
    assert float(without.total) > 2 * float(before.total)


def test_an_estimated_coastal_band_does_not_count(result: Reconstruction) -> None:
    counted = weights(torch.ones(3, 8, 8, dtype=torch.bool), [False, True, False])
    bands = counted.view(3, 4, 7, 16)
    assert bands[1, :, 0].sum() == 0
    assert bands[[0, 2]].all()
    assert bands[1, :, 1:].all()


def test_weights_are_in_the_order_of_the_targets() -> None:
    valid = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid[0, 5, 2] = True
    marked = MoEMAE(CONFIG).patchify(valid[:, None].expand(-1, 7, -1, -1).float())
    assert torch.equal(weights(valid), marked)


def test_nothing_valid_gives_zero_not_nan(result: Reconstruction) -> None:
    losses = pretraining_losses(result, weights(torch.zeros(3, 8, 8, dtype=torch.bool)), LossConfig())
    assert float(losses.masked) == float(losses.unmasked) == 0
    assert torch.isfinite(losses.total)


def test_normalised_targets_are_those_of_each_patch_alone(result: Reconstruction) -> None:
    target = result.target.numpy()
    normal = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, keepdims=True) + 1e-6)
    perfect = result._replace(predicted=torch.from_numpy(normal))
    losses = pretraining_losses(perfect, None, LossConfig(normalise_patches=True))
    assert float(losses.masked) == pytest.approx(0, abs=1e-6)
    shifted = result._replace(target=result.target * 3 + 7, predicted=perfect.predicted)
    assert float(pretraining_losses(shifted, None, LossConfig(normalise_patches=True)).masked) < 1e-3


def test_relative_errors_are_in_the_unit_of_each_tile_and_band() -> None:
    torch.manual_seed(0)
    model = MoEMAE(CONFIG, targets="visible").eval()
    dn = torch.randint(5_000, 20_000, (3, 7, 8, 8))
    with torch.inference_mode():
        found: Reconstruction = model(dn, torch.zeros(3, 4, 2))
    assert found.frame is not None
    raw = found._replace(
        predicted=found.frame.relative(found.predicted), target=found.frame.relative(found.target), frame=None
    )
    counted = weights(torch.ones(3, 8, 8, dtype=torch.bool), [True, False, False])
    for w in (None, counted):
        ours, expected = (pretraining_losses(r, w, LossConfig(targets="visible")) for r in (found, raw))
        assert [float(v) for v in ours] == pytest.approx([float(v) for v in expected], rel=1e-5)
    perfect = pretraining_losses(found._replace(predicted=found.target), None, LossConfig(targets="visible"))
    assert float(perfect.masked) == 0


def test_two_kinds_of_relative_targets_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="normalise_patches needs targets=absolute; got targets=visible"):
        LossConfig(targets="visible", normalise_patches=True)
