"""The guess from the visible patches: what scipy's says, exact for slopes, blind to what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from model.kriging import NUGGET, kriged

GRID, SIDE, BANDS = 5, 4, 2
SIZE = GRID * SIDE


def patchify(image: NDArray[np.float64]) -> torch.Tensor:
    """(B, C, S, S) → [B, L, C * p * p]."""
    z = torch.from_numpy(image).float()
    return torch.nn.functional.unfold(z, SIDE, stride=SIDE).transpose(1, 2)


def unpatchify(patches: torch.Tensor) -> NDArray[np.float64]:
    folded = torch.nn.functional.fold(patches.transpose(1, 2), SIZE, SIDE, stride=SIDE)
    return folded.numpy().astype(np.float64)


def choose(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Visible patches [1, K] and their pixels [1, L, p * p]."""
    visible = torch.from_numpy(rng.permutation(GRID**2)[:count]).unsqueeze(0)
    seen = torch.zeros(1, GRID**2, SIDE**2, dtype=torch.bool)
    seen[0, visible[0]] = True
    return visible, seen


@given(st.integers(0, 2**31), st.integers(4, 12))
@settings(max_examples=20, deadline=None)
def test_it_is_what_scipy_makes_of_the_block_means(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, BANDS, SIZE, SIZE)).cumsum(2).cumsum(3)
    visible, seen = choose(rng, count)
    found = unpatchify(kriged(patchify(image), seen, visible, BANDS))[0]
    half = SIDE // 2
    means = image[0].reshape(BANDS, SIZE // half, half, SIZE // half, half).mean((2, 4))
    known = np.zeros((GRID, GRID), dtype=bool)
    known.flat[visible[0].numpy()] = True
    blocks = np.kron(known, np.ones((2, 2), dtype=bool))
    at = (np.argwhere(blocks) + 0.5) * half
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1).reshape(-1, 2) + 0.5
    # scipy's kernel is -r, to whose diagonal it adds the smoothing.
    scipy = RBFInterpolator(at, means[:, blocks].T, kernel="linear", degree=1, smoothing=NUGGET * SIZE)
    np.testing.assert_allclose(found, scipy(pixels).T.reshape(BANDS, SIZE, SIZE), rtol=2e-3, atol=2e-2)


def test_a_slope_is_continued_exactly_and_a_level_too() -> None:
    row, column = np.mgrid[:SIZE, :SIZE].astype(float)
    image = np.stack([3 + 0.2 * row - 0.1 * column, np.full_like(row, -1.5)])[None]
    visible, seen = choose(np.random.default_rng(3), 5)
    found = unpatchify(kriged(patchify(image), seen, visible, BANDS))
    np.testing.assert_allclose(found, image, atol=2e-4)


@pytest.mark.parametrize("spoiled", [1e6, float("inf"), float("nan")])
def test_hidden_and_invalid_pixels_count_for_nothing(spoiled: float) -> None:
    rng = np.random.default_rng(1)
    patches = patchify(rng.normal(size=(1, BANDS, SIZE, SIZE)))
    visible, seen = choose(rng, 6)
    seen[0, visible[0, 0]] = False  # a visible patch without any measurement
    seen[0, visible[0, 1], ::3] = False
    unseen = ~seen.unsqueeze(2).expand(-1, -1, BANDS, -1).flatten(2)
    found = kriged(patches, seen, visible, BANDS)
    other = kriged(torch.where(unseen, spoiled, patches), seen, visible, BANDS)
    assert torch.equal(found, other)
    without = kriged(patches, seen, visible[:, 1:], BANDS)  # as if the empty patch were not there at all
    torch.testing.assert_close(found, without, rtol=1e-3, atol=1e-3)


def test_nothing_seen_is_the_mean_of_the_data() -> None:
    patches = patchify(np.random.default_rng(0).normal(size=(2, BANDS, SIZE, SIZE)))
    seen = torch.zeros(2, GRID**2, SIDE**2, dtype=torch.bool)
    assert torch.equal(kriged(patches, seen, torch.tensor([[0, 3, 7]] * 2), BANDS), torch.zeros_like(patches))


def test_patches_of_an_odd_side_are_one_block() -> None:
    row, column = np.mgrid[:9, :9].astype(float)
    z = torch.from_numpy((row - 2 * column)[None, None]).float()
    patches = torch.nn.functional.unfold(z, 3, stride=3).transpose(1, 2)
    seen = torch.ones(1, 9, 9, dtype=torch.bool)
    torch.testing.assert_close(
        kriged(patches, seen, torch.tensor([[0, 2, 7]]), 1), patches, atol=1e-4, rtol=0
    )
