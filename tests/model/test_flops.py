"""The arithmetic of a tile, against the products that the exported graph really has."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper

from model.config import SIZES, ModelConfig
from model.flops import flops_per_tile
from model.fused import fuse
from model.graph import to_onnx
from model.moe_mae import Encoder


@pytest.mark.parametrize("size", SIZES)
def test_it_is_what_the_graph_multiplies(size: str) -> None:
    config = SIZES[size]
    graph = onnx.shape_inference.infer_shapes(to_onnx(fuse(Encoder(config).eval()))).graph
    # Pooling is not counted.
    assert flops_per_tile(config) == pytest.approx(_of_products(graph, config), rel=0.001)


def test_size_s() -> None:
    assert flops_per_tile(SIZES["S"]) == pytest.approx(581e6, rel=0.002)


def _of_products(graph: onnx.GraphProto, config: ModelConfig) -> int:
    weights = {w.name: numpy_helper.to_array(w).shape for w in graph.initializer}
    rows = {"patches.projected": config.num_patches, "metadata.projected": 1}
    total = 0
    for node in graph.node:
        if node.op_type == "Gemm":
            inner, columns = weights[node.input[1]]
            total += 2 * rows.get(node.name, config.num_tokens) * inner * columns
        # Not the experts' mix: a weighted sum, which is only written as a product.
        elif node.op_type == "MatMul" and node.name.endswith((".scores", ".values")):
            d = config.embed_dim // config.num_heads
            total += 2 * config.num_heads * config.num_tokens**2 * d
    return total
