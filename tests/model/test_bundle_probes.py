"""Probes inside a bundle: found by name, read, and checked against the encoder's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import bundle, bundle_writer
from model.bundle import Bundle, BundleError
from model.config import SIZES, Preprocessing
from model.outputs import Pooling
from model.probe import LinearProbe, encode


def linear(pooling: Pooling, dim: int) -> LinearProbe:
    weights, bias = np.zeros((2, dim), np.float32), np.zeros(2, np.float32)
    return LinearProbe("multi-label", pooling, ("water", "forest"), weights, bias)


def probe(pooling: Pooling, dim: int) -> bytes:
    return encode(linear(pooling, dim))


def write(path: Path, **probes: bytes) -> Bundle:
    files: dict[str, bytes | Path] = {f"probes/{name}.safetensors": data for name, data in probes.items()}
    return bundle_writer.write(
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


def test_a_probe_is_added_and_replaced(tmp_path: Path) -> None:
    before = write(tmp_path / "b", b=probe("mean", 108))
    new = linear("cls", 108)
    after = bundle_writer.add_probe(tmp_path / "b", "a", new)
    assert after.probe_names == ("a", "b")
    assert after.probe("a").pooling == "cls"
    assert after.digest != before.digest
    assert (after.name, after.card, after.encoder_digest()) == ("test", "card", before.encoder_digest())
    again = bundle_writer.add_probe(tmp_path / "b", "b", new)
    assert again.probe("b").pooling == "cls"


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [
        ("a", 144, "reads 144 values of mean; the encoder gives 108"),
        ("../a", 108, "cannot be the name of a probe"),
        ("", 108, "cannot be the name of a probe"),
    ],
)
def test_a_probe_that_does_not_fit_is_not_added(tmp_path: Path, name: str, dim: int, message: str) -> None:
    before = write(tmp_path / "b", b=probe("mean", 108))
    with pytest.raises(BundleError, match=message):
        bundle_writer.add_probe(tmp_path / "b", name, linear("mean", dim))
    assert bundle.load(tmp_path / "b").digest == before.digest
    assert [folder.name for folder in tmp_path.iterdir()] == ["b"]
