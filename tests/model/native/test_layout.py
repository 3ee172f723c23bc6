"""Which files the kernels accept, and how numbers are packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model.fused import fuse
from model.graph import to_onnx
from model.native.layout import Kernels, LayoutError, pack, to_bf16
from tests.model.networks import SMALL, onnx_bytes, scrambled


@pytest.fixture(scope="module")
def content() -> bytes:
    return onnx_bytes(scrambled().model.encoder)


def test_an_exported_encoder_is_accepted(content: bytes) -> None:
    packed = pack(content, SMALL, "fp32")
    assert [len(layer.experts) for layer in packed.layers] == list(SMALL.num_experts)
    assert packed.placed.shape == (SMALL.num_tokens, 32)
    assert not packed.placed[:, SMALL.embed_dim :].any()


@pytest.mark.parametrize(("kernels", "lanes", "panel"), [("fp32", 16, 48), ("avx2", 8, 16)])
def test_weights_stand_in_panels(content: bytes, kernels: Kernels, lanes: int, panel: int) -> None:
    packed = pack(content, SMALL, kernels)
    qkv = packed.layers[0].qkv
    [weight] = (
        numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(content).graph.initializer
        if tensor.name == "layer.0.qkv.weight"
    )
    assert packed.width == qkv.inputs + (-qkv.inputs) % lanes
    assert qkv.outputs == weight.shape[1] + (-weight.shape[1]) % lanes
    starts = np.arange(panel, qkv.outputs, panel)
    wide = np.hstack([each.reshape(qkv.inputs, -1) for each in np.split(qkv.weight, starts * qkv.inputs)])
    assert np.array_equal(wide[:, : weight.shape[1]], weight)
    assert not wide[:, weight.shape[1] :].any()


@pytest.mark.parametrize("kernels", ["fp32", "avx2", "bf16", "amx"])
def test_weights_begin_where_a_cache_line_does(content: bytes, kernels: Kernels) -> None:
    packed = pack(content, SMALL, kernels)
    for layer in packed.layers:
        for product in (layer.qkv, layer.out, layer.values, layer.down, *layer.experts):
            assert product.weight.ctypes.data % 64 == 0


def test_another_architecture_is_refused(content: bytes) -> None:
    with pytest.raises(LayoutError, match=r"layer\.4\.norm1 is missing; expected LayerNormalization"):
        pack(content, replace(SMALL, depth=5), "fp32")
    with pytest.raises(LayoutError, match=r"layer\.3\. .* is one layer more|is one layer more than the 3"):
        pack(content, replace(SMALL, depth=3), "fp32")
    with pytest.raises(LayoutError, match=r"is \(24, .*\); expected"):
        pack(content, replace(SMALL, first_hidden=14), "fp32")


def test_half_precision_is_another_graph() -> None:
    half = to_onnx(fuse(scrambled().model.encoder), half=True).SerializeToString()
    with pytest.raises(LayoutError, match="expected"):
        pack(half, SMALL, "fp32")


def test_an_older_order_of_queries_is_refused(content: bytes) -> None:
    """It has the same constants, and would give other embeddings without an error."""
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        node.name = node.name.replace("by_column", "by_group")
    with pytest.raises(LayoutError, match=r"layer\.0\.by_column is missing"):
        pack(model.SerializeToString(), SMALL, "fp32")


def test_no_network_at_all() -> None:
    for junk in (
        b"",
        b"this is not ONNX",
        helper.make_model(helper.make_graph([], "", [], [])).SerializeToString(),
    ):
        with pytest.raises(LayoutError):
            pack(junk, SMALL, "fp32")


def test_bf16_is_rounded_to_nearest_and_ties_to_even() -> None:
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 3 * 2**-8, 0, -0.0], np.float32)
    wide = (to_bf16(values).astype(np.uint32) << 16).view(np.float32)
    assert wide.tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1 - 2**-6, 0, 0]
