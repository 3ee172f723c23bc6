"""Targets relative to the visible patches: invertible, finite, and blind to what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.moe_mae import MoEMAE
from model.targets import PRIOR_PIXELS, Targets, visible_frame
from tests.model.test_moe_mae import SMALL, batch

BANDS, PIXELS = 7, 16
RELATIVE: tuple[Targets, ...] = ("visible", "kriged")


def patches(seed: int, tiles: int = 3, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    level = 3 * torch.randn(tiles, 1, BANDS, 1, generator=generator)
    spread = torch.rand(tiles, 1, BANDS, 1, generator=generator)
    return (level + spread * torch.randn(tiles, count, BANDS, PIXELS, generator=generator)).flatten(2)


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_inversion_and_blindness_to_unseen_pixels(seed: int, share: float) -> None:
    z = patches(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    seen = torch.rand(3, 4, PIXELS, generator=rng) < share
    frame = visible_frame(z, seen, BANDS)
    torch.testing.assert_close(frame.absolute(frame.relative(z)), z, rtol=1e-5, atol=1e-5)
    unseen = ~seen[:, :, None].expand(-1, -1, BANDS, -1).flatten(2)
    for spoiled in (1e6, float("inf"), float("nan")):
        other = visible_frame(torch.where(unseen, spoiled, z), seen, BANDS)
        assert torch.equal(other.mean, frame.mean)
        assert torch.equal(other.scale, frame.scale)


def test_mean_and_scale_are_those_of_the_seen_pixels() -> None:
    z, seen = patches(0), torch.rand(3, 4, PIXELS, generator=torch.Generator().manual_seed(2)) < 0.6
    frame = visible_frame(z, seen, BANDS)
    values = z.view(3, 4, BANDS, PIXELS).numpy()
    for tile in range(3):
        for band in range(BANDS):
            chosen = values[tile, :, band][seen[tile].numpy()].astype(np.float64)
            prior = len(chosen) + PRIOR_PIXELS
            scale = np.sqrt((chosen.var() * len(chosen) + PRIOR_PIXELS) / prior)
            at = np.s_[tile, 0, band * PIXELS : (band + 1) * PIXELS]
            np.testing.assert_allclose(frame.mean[at].numpy(), chosen.mean(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(frame.scale[at].numpy(), scale, rtol=1e-4)


def test_flat_and_hardly_visible_tiles_have_a_bounded_unit() -> None:
    flat = torch.full((1, 25, BANDS * PIXELS), 2.5)
    seen = torch.ones(1, 25, PIXELS, dtype=torch.bool)
    frame = visible_frame(flat, seen, BANDS)
    assert float(frame.scale[0, 0, 0]) == pytest.approx(0.1, rel=0.01)  # z-scores; 400 pixels
    assert float(frame.relative(flat).abs().max()) == 0
    one = torch.zeros_like(seen)
    one[0, 3, 7] = True
    assert float(visible_frame(flat, one, BANDS).scale[0, 0, 0]) > 0.8  # one pixel says nothing of the spread
    nothing = visible_frame(flat, torch.zeros_like(seen), BANDS)
    assert torch.equal(nothing.relative(flat), flat)


@pytest.mark.parametrize("targets", RELATIVE)
def test_predictions_do_not_depend_on_hidden_or_invalid_pixels(targets: Targets) -> None:
    torch.manual_seed(0)
    model = MoEMAE(SMALL, targets=targets).eval()
    dn, metadata = batch(1)
    noise = torch.arange(SMALL.num_patches).float().unsqueeze(0)  # the first patch alone is visible
    hidden = dn.clone()
    hidden[..., 4:, 4:] = 65_535
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 1, 2] = False
    with torch.inference_mode():
        found = model(dn, metadata, noise, valid=valid)
        assert torch.equal(found.predicted, model(hidden, metadata, noise, valid=valid).predicted)
        dn[..., 1, 2] = 60_000  # fed to the network, but no part of the mean and the unit
        frame = model(dn, metadata, noise, valid=valid).frame
        without = model(dn, metadata, noise).frame
    assert torch.equal(frame.mean, found.frame.mean)
    assert torch.equal(frame.scale, found.frame.scale)
    moved = (without.mean - frame.mean).abs().amax()
    assert moved > 0.1  # z-scores


@pytest.mark.parametrize("targets", RELATIVE)
def test_all_kinds_are_the_same_network_read_differently(targets: Targets) -> None:
    torch.manual_seed(0)
    absolute = MoEMAE(SMALL).eval()
    relative = MoEMAE(SMALL, targets=targets).eval()
    relative.load_state_dict(absolute.state_dict())
    dn, metadata = batch(2)
    noise = torch.rand(2, SMALL.num_patches)
    with torch.inference_mode():
        one, other = absolute(dn, metadata, noise), relative(dn, metadata, noise)
    assert one.frame is None
    assert torch.equal(other.predicted, other.frame.absolute(one.predicted))
    assert torch.equal(other.target, one.target)
