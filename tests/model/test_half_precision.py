"""The fp16 encoder: close to the exact one, refused where it is not, the same in any batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model import bundle, checkpoint
from model import export as exporting
from model.checkpoint import Checkpoint
from model.config import SIZES
from model.deviation import MIN_COSINE, Deviation, cosine, measure_deviation
from model.export import ExportError, export
from model.fused import FusedEncoder, fuse
from model.graph import to_onnx
from model.graph_nodes import GraphError
from model.padding import padded
from tests.model.networks import SMALL, inputs, onnx_bytes, run, session, unfused
from training.cli import app

HALF, SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def network() -> Checkpoint:
    return checkpoint.initialise(SMALL, 0)


@pytest.fixture(scope="module")
def fused(network: Checkpoint) -> FusedEncoder:
    return fuse(network.model.encoder.eval())


@pytest.fixture(scope="module")
def half(fused: FusedEncoder) -> bytes:
    serialised: bytes = to_onnx(padded(fused), half=True).SerializeToString(deterministic=True)
    return serialised


def test_embeddings_are_close_and_tokens_keep_their_experts(network: Checkpoint, half: bytes) -> None:
    measured = measure_deviation(onnx_bytes(network.model.encoder), half, SMALL, "fp16")
    assert measured.passed, measured
    assert measured.least_cosine["mean"] > 0.99999
    assert measured.same_experts > 0.995 * measured.decisions
    assert measured.decisions == measured.tiles * SMALL.depth * SMALL.num_tokens
    assert measured.least_cosine["tokens"] < 1  # it is not the fp32 encoder under another name


def test_size_s_is_close_to_the_network() -> None:
    network = checkpoint.initialise(SIZES["S"], 1)
    dn, metadata = inputs(4)
    half = to_onnx(padded(fuse(network.model.encoder.eval())), half=True).SerializeToString()
    tokens = unfused(network.model.encoder, dn, metadata)
    found = run(session(half), dn, metadata)
    assert cosine(found["mean"], tokens.mean(axis=1)).min() > 0.99999
    assert cosine(found["tokens"], tokens).min() > 0.98  # a token whose experts changed may be far
    assert np.median(cosine(found["tokens"], tokens)) > 0.99999


def test_the_whole_range_of_dn_is_finite(half: bytes) -> None:
    extremes = np.array([0, 1, 65504, 65535], np.uint16)
    dn = np.tile(extremes[:, None, None, None], (1, 7, 40, 40))
    for values in run(session(half), dn, inputs(4)[1]).values():
        assert np.isfinite(values).all()
        assert values.dtype == np.float32


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_tile_is_the_same_in_any_batch(half: bytes, size: int) -> None:
    """Within a rounding of fp16: where a value stands in its array may decide which code computes it."""
    dn, metadata = inputs(7)
    running = session(half)
    together = run(running, dn, metadata)
    alone = run(running, dn[-size:], metadata[-size:])
    for name, values in alone.items():
        assert np.abs(values - together[name][-size:]).max() <= 5e-4 * np.abs(together["tokens"]).max(), name


def test_islands_are_single_and_products_are_half(half: bytes) -> None:
    """Types as onnx infers them: what a GPU will compute in."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(half), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for layer in range(SMALL.depth):
        name = f"layer.{layer}"
        for part in ("norm1", "norm2", "attended", "mixed", "logits", "gates"):
            assert types[f"{name}.{part}"] == SINGLE, part
        for part in ("qkv", "scores", "values", "out", "experts_in", "weighted", "experts_out"):
            assert types[f"{name}.{part}"] == HALF, part
    assert types["patches.centred"] == types["patches.tokens"] == SINGLE
    assert types["patches.projected"] == HALF
    assert {output.type.tensor_type.elem_type for output in model.graph.output} == {SINGLE}


def test_half_the_size(network: Checkpoint) -> None:
    fused = fuse(checkpoint.initialise(SIZES["S"], 0).model.encoder)
    assert len(to_onnx(padded(fused), half=True).SerializeToString()) < 6e6


def test_bundle_with_both(network: Checkpoint, half: bytes, tmp_path: Path) -> None:
    made = export(network, tmp_path / "bundle", precisions=("fp32", "fp16"))
    assert made.precisions == ("fp16", "fp32")
    assert made.encoder_path("fp16").read_bytes() == half
    assert made.encoder_digest("fp16") != made.encoder_digest()
    record = made.parity["fp16"]
    assert record["against"] == "fp32"
    assert record["bounds"] == MIN_COSINE
    assert all(record["least_cosine"][name] >= bound for name, bound in MIN_COSINE.items())
    assert 0.99 < record["routing_agreement"] <= 1
    assert record["max_batch_difference"] <= 1e-3
    alone = export(network, tmp_path / "other")
    assert alone.precisions == ("fp32",)
    assert alone.encoder_digest() == made.encoder_digest()


def test_an_encoder_that_deviates_is_refused(
    network: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(fused: FusedEncoder) -> FusedEncoder:
        return padded(replace(fused, patch_constant=fused.patch_constant[:, ::-1].copy()))

    monkeypatch.setattr(exporting, "padded", disturbed)
    with pytest.raises(ExportError, match=r"no bundle written: fp16 against fp32, 135 tiles: least cosine"):
        export(network, tmp_path / "bundle", precisions=("fp16",))
    assert not list(tmp_path.iterdir())


def test_weights_beyond_the_range_are_refused(fused: FusedEncoder) -> None:
    first = fused.layers[0]
    out = replace(first.out, bias=first.out.bias + np.float32(1e5))
    with pytest.raises(GraphError, match=r"layer\.0\.out\.bias reaches 100000; fp16 ends at 65504"):
        to_onnx(replace(fused, layers=(replace(first, out=out), *fused.layers[1:])), half=True)


def test_unknown_precision_is_named(network: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no encoder in fp8; expected some of fp32, fp16"):
        export(network, tmp_path / "bundle", precisions=("fp8",))


def test_nothing_measured_and_nan_do_not_pass() -> None:
    assert not Deviation("fp16").passed
    fine = {name: np.ones((2, 3), np.float32) for name in ("mean", "cls", "patch_mean", "tokens")}
    choices = np.ones((2, 1, 1, 3), bool)
    measured = Deviation("fp16")
    measured.add(fine | {"choices": choices}, fine | {"choices": choices})
    assert measured.passed
    broken = fine | {"cls": np.full((2, 3), np.nan, np.float32), "choices": choices}
    measured.add(broken, fine | {"choices": choices})
    measured.add(fine | {"choices": choices}, fine | {"choices": choices})
    assert not measured.passed


def test_command_line(tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "bundle"
    checkpoint.save(weights, checkpoint.initialise(SMALL, 0))
    done = CliRunner().invoke(app, ["export", str(weights), "-o", str(folder), "--precision", "fp16"])
    assert done.exit_code == 0, done.output
    assert "fp16 against fp32, 135 tiles: least cosine " in done.output
    assert bundle.load(folder).precisions == ("fp16", "fp32")
