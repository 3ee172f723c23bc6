"""Bilinear resampling against torch, and what invalid pixels do to it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import resample
from model.resample import resize
from tests.rasters import dn_pixels


def all_valid(height, width):
    return np.ones((height, width), np.bool_)


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (22, 22),
        (40, 40),
        (41, 45),
        (64, 64),
        (39, 200),
        (1, 3),
        (300, 17),
        (1025, 30),
        (3, 2000),
        (1100, 1300),
    ],
)
def test_as_torch_does(height, width):
    dn = dn_pixels(height, width)
    got, valid = resize(dn, all_valid(height, width), 40)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(dn.astype(np.float64))[None],
        size=(40, 40),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0].numpy()
    assert valid.all()
    assert got.dtype == np.uint16
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


def test_enlarging_is_plain_interpolation():
    dn = dn_pixels(22, 22)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(dn.astype(np.float64))[None], size=(40, 40), mode="bilinear", align_corners=False
    )[0].numpy()
    got, _ = resize(dn, all_valid(22, 22), 40)
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


def test_by_hand():
    dn = np.array([[[1000, 2000]]], np.uint16)
    got, _ = resize(dn, all_valid(1, 2), 4)
    # half-pixel centres: at -0.25, 0.25, 0.75, 1.25 of the input
    np.testing.assert_array_equal(got[0], [[1000, 1250, 1750, 2000]] * 4)


def test_forty_stays():
    dn = dn_pixels(40, 40)
    valid = all_valid(40, 40)
    valid[7, 9] = False
    got, still = resize(dn, valid, 40)
    np.testing.assert_array_equal(still, valid)
    np.testing.assert_array_equal(got[:, valid], dn[:, valid])
    assert not got[:, 7, 9].any()


def test_an_invalid_pixel_spoils_what_it_touches_and_nothing_else():
    dn = dn_pixels(20, 20)
    valid = all_valid(20, 20)
    valid[10, 10] = False
    clean, _ = resize(dn, all_valid(20, 20), 40)
    got, still = resize(dn, valid, 40)
    # Twice as large: output i reads inputs around (i + 0.5) / 2 - 0.5, so input 10 reaches outputs 19 to 22.
    expected = np.ones((40, 40), np.bool_)
    expected[19:23, 19:23] = False
    np.testing.assert_array_equal(still, expected)
    assert not got[:, ~still].any()
    np.testing.assert_array_equal(got[:, still], clean[:, still])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_values_stay_between_the_extremes_and_validity_follows_influence(height, width, seed):
    rng = np.random.default_rng(seed)
    dn = rng.integers(1, 65_536, (2, height, width), dtype=np.uint16)
    valid = rng.random((height, width)) < 0.95
    got, still = resize(dn, valid, 40)
    assert dn.min() <= got[:, still].min(initial=65_535)
    assert got[:, still].max(initial=0) <= dn.max()
    assert not got[:, ~still].any()
    changed = dn.copy()
    changed[:, ~valid] = 65_535 - changed[:, ~valid]
    again, _ = resize(changed, valid, 40)
    np.testing.assert_array_equal(got, again)  # invalid values reach no output


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0, 0.02), st.integers(0, 2**32 - 1))
def test_long_axes_are_resampled_as_short_ones(height, width, share, seed):
    rng = np.random.default_rng(seed)
    dn = rng.integers(1, 60_000, (7, height, width)).astype(np.uint16)
    valid = rng.random((height, width)) >= share
    by_matrix, valid_by_matrix = resize(dn, valid, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_MAX_MATRIX_LENGTH", 0)
        got, still = resize(dn, valid, 40)
    np.testing.assert_array_equal(still, valid_by_matrix)
    assert np.abs(got.astype(int) - by_matrix).max() <= 1  # halves may be rounded the other way


@pytest.mark.parametrize("shape", [(1, 1_000_000), (1_000_000, 1)])
def test_a_raster_of_one_row_takes_little_memory(shape):
    """Its matrix would have 320 MB."""
    dn = np.full((1, *shape), 9_000, np.uint16)
    tracemalloc.start()
    try:
        got, valid = resize(dn, all_valid(*shape), 40)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert valid.all()
    assert (got == 9_000).all()
    assert peak < 20_000_000


def test_little_is_kept():
    for length in range(900, 1100):
        resize(np.ones((7, length, 1), np.uint16), all_valid(length, 1), 40)
    kept = resample._weights.cache_info()
    assert kept.currsize * 40 * 8 * resample._MAX_MATRIX_LENGTH < 12_000_000
