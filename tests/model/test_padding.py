"""Padding changes sizes and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from model.config import SIZES, ModelConfig
from model.fused import fuse
from model.graph import to_onnx
from model.outputs import POOLINGS
from model.padding import padded
from tests.model.networks import SMALL, inputs, run, scrambled, session


@pytest.mark.parametrize("config", [SMALL, SIZES["XXS"]], ids=["small", "XXS"])
def test_a_padded_encoder_is_the_same_function(config: ModelConfig) -> None:
    fused = fuse(scrambled(config).model.encoder)
    wider = padded(fused)
    assert [(layer.hidden % 16, layer.head_dim % 8) for layer in wider.layers] == [(0, 0)] * config.depth
    dn, metadata = inputs(3)
    plain, other = (run(session(to_onnx(each).SerializeToString()), dn, metadata) for each in (fused, wider))
    for name in POOLINGS:
        assert np.abs(other[name] - plain[name]).max() <= 1e-6 * np.abs(plain["tokens"]).max(), name


def test_sizes_that_fit_stay_as_they_are() -> None:
    fused = fuse(scrambled().model.encoder)
    same = padded(fused, hidden_multiple=1, head_multiple=2)
    for before, after in zip(fused.layers, same.layers, strict=True):
        assert (after.hidden, after.head_dim) == (before.hidden, before.head_dim)
        for part in ("qkv", "out", "experts_in", "experts_out"):
            assert np.array_equal(getattr(after, part).weight, getattr(before, part).weight)
            assert np.array_equal(getattr(after, part).bias, getattr(before, part).bias)


def test_padding_is_zeros() -> None:
    """What is added cannot carry a value, however large the others are."""
    fused = fuse(scrambled().model.encoder)
    for before, after in zip(fused.layers, padded(fused).layers, strict=True):
        for part in ("qkv", "out", "experts_in", "experts_out"):
            for side in ("weight", "bias"):
                old, new = (getattr(getattr(layer, part), side) for layer in (before, after))
                assert np.count_nonzero(new) == np.count_nonzero(old), (part, side)
                assert np.isclose(new.sum(dtype=np.float64), old.sum(dtype=np.float64)), (part, side)
