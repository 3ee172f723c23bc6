"""Probes inside a bundle: found by name, read, and checked against the encoder's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import bundle
from model.bundle import Bundle, BundleError
from model.config import SIZES, Preprocessing
from model.probe import LinearProbe, Pooling, encode


def probe(pooling: Pooling, dim: int) -> bytes:
    weights, bias = np.zeros((2, dim), np.float32), np.zeros(2, np.float32)
    return encode(LinearProbe("multi-label", pooling, ("water", "forest"), weights, bias))


def write(path: Path, **probes: bytes) -> Bundle:
    files: dict[str, bytes | Path] = {f"probes/{name}.safetensors": data for name, data in probes.items()}
    return bundle.write(
        path, name="test", version="1", trained=False, config=SIZES["XXS"], preprocessing=Preprocessing(),
        training={}, metrics={}, parity={}, card="card", files={"encoder.fp32.onnx": b"x", **files},
    )  # fmt: skip


def test_probes_are_found_by_name_and_read(tmp_path: Path) -> None:
    tokens = SIZES["XXS"].num_tokens
    found = write(
        tmp_path / "b", b=probe("mean", 108), a=probe("patch_mean_std", 216), c=probe("tokens", tokens * 108)
    )
    assert found.probe_names == ("a", "b", "c")
    assert found.probe("a").pooling == "patch_mean_std"
    assert found.probe("c").dim == tokens * 108
    assert write(tmp_path / "none").probe_names == ()


def test_unknown_damaged_and_unfitting_probes_are_named(tmp_path: Path) -> None:
    found = write(tmp_path / "b", size=probe("mean", 144), junk=b"junk")
    with pytest.raises(BundleError, match="no probe 'x'; it has junk, size"):
        found.probe("x")
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        found.probe("junk")
    with pytest.raises(BundleError, match="reads 144 values of mean; the encoder gives 108"):
        found.probe("size")
