"""The bound on attention's scores, which decides whether the graph lowers them before exponentials."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from model.fused import FusedEncoder, fuse
from model.graph import to_onnx
from model.graph_attention import LARGEST_SCORE, largest_score
from model.layers import Block
from model.moe_mae import Encoder
from tests.model.networks import inputs, run, scrambled, session, unfused


def with_larger_queries(factor: float) -> tuple[Encoder, FusedEncoder]:
    encoder = scrambled().model.encoder
    with torch.no_grad():
        for layer in encoder.layers:
            assert isinstance(layer, Block)
            layer.attn.q_proj.weight.mul_(factor)
            layer.attn.q_proj.bias.mul_(factor)
    return encoder, fuse(encoder)


@pytest.mark.parametrize("factor", [0.1, 1.0, 20.0])
def test_no_score_exceeds_the_bound(factor: float) -> None:
    _, fused = with_larger_queries(factor)
    model = to_onnx(fused)
    names = [f"layer.{i}.scores" for i in range(len(fused.layers))]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    dn, metadata = inputs(3)
    found = session(model.SerializeToString()).run(names, {"dn": dn, "metadata": metadata})
    for scores, layer in zip(found, fused.layers, strict=True):
        bound = largest_score(fused, layer)
        assert 0.05 * bound < np.abs(scores).max() <= bound  # it is a bound, and not a useless one


def test_scores_whose_exponential_would_overflow_are_lowered_first() -> None:
    encoder, fused = with_larger_queries(100.0)
    assert all(largest_score(fused, layer) > 20 * LARGEST_SCORE for layer in fused.layers)
    dn, metadata = inputs(3)
    reference = unfused(encoder, dn, metadata)
    found = run(session(to_onnx(fused).SerializeToString()), dn, metadata)["tokens"]
    # Scores of hundreds: a rounding of one is 1e-4 of its exponential.
    assert np.abs(found - reference).max() <= 1e-3 * np.abs(reference).max()


def test_only_those_are_lowered() -> None:
    _, fused = with_larger_queries(0.1)
    assert all(largest_score(fused, layer) < LARGEST_SCORE for layer in fused.layers)
    assert not [node for node in to_onnx(fused).graph.node if node.op_type == "ReduceMax"]
