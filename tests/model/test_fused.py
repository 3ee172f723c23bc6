"""The fused encoder and its graph: the same numbers as the network, in exactly the promised products."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from model import bundle
from model.checkpoint import Checkpoint, initialise
from model.config import SIZES, ModelConfig
from model.fused import fuse
from model.graph import to_onnx
from model.layers import Block
from model.outputs import POOLINGS, ROUTING
from model.published import import_reference, read_config
from tests.model.networks import GOLDEN, SMALL, inputs, onnx_bytes, run, scrambled, session, unfused

GOLDEN_TOLERANCE = 2e-5  # of the largest reference token
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def small() -> Checkpoint:
    return scrambled()


@pytest.mark.parametrize("which", ["tiny", "XXS"])
def test_graph_gives_the_published_tokens(which: str, request: pytest.FixtureRequest) -> None:
    folder = GOLDEN if which == "tiny" else request.getfixturevalue("shared") / "golden"
    stem = folder / f"reference_{which}"
    checkpoint = import_reference(stem.with_suffix(".pth"), read_config(stem.with_suffix(".json")))
    running = session(onnx_bytes(checkpoint.model.encoder))
    with np.load(stem.with_suffix(".npz")) as golden:
        for reference, metadata in (
            (golden["tokens"], golden["metadata"]),
            (golden["tokens_without_metadata"], np.zeros_like(golden["metadata"])),
        ):
            found = run(running, golden["dn"], metadata)["tokens"]
            assert np.abs(found - reference).max() <= GOLDEN_TOLERANCE * np.abs(reference).max()


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_graph_equals_the_network_with_every_weight_scrambled(top_k: int, batch: int) -> None:
    config = ModelConfig(**{**SMALL.to_dict(), "top_k": top_k})
    encoder = scrambled(config).model.encoder
    dn, metadata = inputs(batch)
    reference = unfused(encoder, dn, metadata)
    found = run(session(onnx_bytes(encoder)), dn, metadata)["tokens"]
    assert found.shape == (batch, config.num_tokens, config.embed_dim)
    assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()


def test_equal_gate_logits_choose_two_experts(small: Checkpoint) -> None:
    """Two equal best experts share a token; neither a third one joins them nor is one lost."""
    checkpoint = scrambled(seed=1)
    with torch.no_grad():
        for layer in checkpoint.model.encoder.layers:
            assert isinstance(layer, Block)
            layer.gate.Wg.weight.zero_()
            layer.gate.Wg.bias.fill_(-1.0)
            layer.gate.Wg.bias[[0, 2]] = 1.0
    dn, metadata = inputs(2)
    reference = unfused(checkpoint.model.encoder, dn, metadata)
    found = run(session(onnx_bytes(checkpoint.model.encoder)), dn, metadata)["tokens"]
    assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()


def test_poolings_are_those_of_the_tokens(small: Checkpoint) -> None:
    found = run(session(onnx_bytes(small.model.encoder)), *inputs(5))
    tokens = found["tokens"].astype(np.float64)
    patches = tokens[:, 5:]
    expected = {
        "mean": tokens.mean(1),
        "cls": tokens[:, 4],
        "patch_mean": patches.mean(1),
        "patch_mean_std": np.concatenate([patches.mean(1), patches.std(1)], axis=1),  # population
    }
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6 * np.abs(tokens).max())


def test_routing_is_what_the_gates_choose(small: Checkpoint) -> None:
    """Shares of a layer's choices, counted in the unfused network."""
    chosen: list[torch.Tensor] = []
    encoder = small.model.encoder
    hooks = [
        layer.gate.register_forward_hook(lambda _module, _inputs, output: chosen.append(gates_of(output)))
        for layer in encoder.layers
    ]
    dn, metadata = inputs(3)
    unfused(encoder, dn, metadata)
    for hook in hooks:
        hook.remove()
    found = session(onnx_bytes(encoder)).run([ROUTING], {"dn": dn, "metadata": metadata})[0]
    most = max(SMALL.num_experts)
    assert found.shape == (3, SMALL.depth, most)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    for depth, gates in enumerate(chosen):
        share = (gates.reshape(3, 105, -1) > 0).sum(1).numpy() / (105 * SMALL.top_k)
        expected = np.zeros((3, most))
        expected[:, : share.shape[1]] = share
        np.testing.assert_allclose(found[:, depth], expected, atol=0.5 / 210)  # less than one choice


def gates_of(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[return-value]


@pytest.mark.parametrize("config", [SMALL, SIZES["S"], SIZES["XS"], SIZES["XXS"]], ids=["small", *SIZES])
def test_graph_has_exactly_the_promised_products(config: ModelConfig) -> None:
    graph = to_onnx(fuse(initialise(config, 0).model.encoder)).graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in floats}
    large = {name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 2}
    assert not {node.op_type for node in graph.node} & {"Loop", "If", "Scan", "NonZero", "ScatterND"}

    products = [node for node in graph.node if large & set(node.input)]
    assert {node.op_type for node in products} - {"Add"} == {"Gemm"}  # Add: the positions
    widths = [shapes[node.input[1]] for node in products if node.op_type == "Gemm"]
    m, d = config.embed_dim, config.embed_dim // config.num_heads
    expected = [(config.patch_values, m), (8, 5 * m)]
    for hidden, experts in zip(config.hidden_dims, config.num_experts, strict=True):
        qkv = m + 2 * config.num_groups * d
        expected += [(m, qkv), (m, m), (m, experts * hidden), (m, hidden), (m, experts), (hidden, m)]
    assert widths == expected

    # Beside them only attention's own two products, and the two of the poolings multiply matrices.
    others = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(others) == 2 * config.depth + 2
    assert sum(any(name in shapes for name in node.input) for node in others) == 2


def test_inputs_and_outputs_are_the_contract_with_a_dynamic_batch(small: Checkpoint) -> None:
    graph = onnx.load_from_string(onnx_bytes(small.model.encoder)).graph

    def described(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int | str]]]:
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            )
            for value in values
        }

    uint16, float32, m = onnx.TensorProto.UINT16, onnx.TensorProto.FLOAT, SMALL.embed_dim
    assert described(list(graph.input)) == {
        "dn": (uint16, ["B", 7, 40, 40]),
        "metadata": (float32, ["B", 4, 2]),
    }
    assert described(list(graph.output)) == {
        "mean": (float32, ["B", m]),
        "cls": (float32, ["B", m]),
        "patch_mean": (float32, ["B", m]),
        "patch_mean_std": (float32, ["B", 2 * m]),
        "tokens": (float32, ["B", 105, m]),
        "routing": (float32, ["B", SMALL.depth, max(SMALL.num_experts)]),
    }


def test_same_weights_give_the_same_bytes(small: Checkpoint) -> None:
    assert onnx_bytes(small.model.encoder) == onnx_bytes(scrambled().model.encoder)
    assert onnx_bytes(small.model.encoder) != onnx_bytes(scrambled(seed=1).model.encoder)


def test_all_weights_are_stored_once_in_float32(small: Checkpoint) -> None:
    graph = onnx.load_from_string(onnx_bytes(small.model.encoder)).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32), np.dtype(np.int64)}
    used = {name for node in graph.node for name in node.input}
    assert arrays.keys() <= used


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("which", ["small", "default"])
def test_tile_alone_equals_tile_in_any_batch(which: str, threads: int, small: Checkpoint) -> None:
    """Bitwise where that was seen (x86-64 with AVX-512); elsewhere within the tolerance, and printed."""
    model = bundle.load().encoder_path() if which == "default" else onnx_bytes(small.model.encoder)
    running = session(model, threads)
    dn, metadata = inputs(33)
    dn[2], dn[3] = 0, 65535
    whole = run(running, dn, metadata)
    scale = np.abs(whole["tokens"]).max()
    difference = 0.0
    for start, size in [(0, 1), (2, 1), (32, 1), (3, 2), (7, 3), (1, 4), (11, 5), (20, 8), (0, 16), (9, 24)]:
        part = run(running, dn[start : start + size], metadata[start : start + size])
        for name in POOLINGS:
            gap = np.abs(part[name] - whole[name][start : start + size]).max()
            difference = max(difference, float(gap))
    order = np.random.default_rng(0).permutation(33)
    shuffled = run(running, dn[order], metadata[order])
    for name in POOLINGS:
        difference = max(difference, float(np.abs(shuffled[name] - whole[name][order]).max()))
    if difference:
        print(f"{which}, {threads} threads: a tile differs by {difference:.2g} from itself in a batch")
    assert difference <= (0.0 if has_avx512() else TOLERANCE * scale)


def test_neighbours_in_a_batch_do_not_matter(small: Checkpoint) -> None:
    running = session(onnx_bytes(small.model.encoder))
    dn, metadata = inputs(4)
    other = dn.copy()
    other[[0, 1, 3]] = 65535
    before, after = run(running, dn, metadata), run(running, other, metadata)
    for name in POOLINGS:
        assert np.array_equal(before[name][2], after[name][2])
        assert not np.array_equal(before[name][0], after[name][0])


def has_avx512() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and cpuinfo.exists() and "avx512f" in cpuinfo.read_text()
