"""The inference graph: a fused encoder written as ONNX, node by node.

It is written directly, not traced: the products are exactly the ones that fused.py describes, nodes carry the
names of the network's parts, nothing depends on the batch size, and the same weights give the same bytes,
hence the same digest. Tracing a torch module would leave these to the exporter's version.

Activations are [B N, m] matrices, so that every product with weights is one `Gemm` over all tokens of the
batch. A token's row is computed from its own tile alone, and `Gemm` sums it in an order that does not depend
on how many rows there are (tested: bitwise), so a tile has the same embedding alone and in any batch.

In half precision the products, attention and the experts' mix are fp16. Islands of fp32 remain where it does
not do: the centring of DN, which exceed its range; the residual stream and LayerNorm, where errors of all
layers would add up; the gates' logits and softmax, where an error is another expert; the poolings.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.config import CLS_TOKEN, NUM_EXTRA_TOKENS, NUM_METADATA_TOKENS
from model.fused import FusedEncoder, FusedLayer
from model.graph_attention import attention
from model.graph_experts import experts, routing
from model.graph_nodes import GraphNodes
from model.outputs import ROUTING, shapes

OPSET = 20  # LayerNormalization and axes as inputs; read by every runtime of the last years
IR_VERSION = 10


def to_onnx(fused: FusedEncoder, *, half: bool = False) -> onnx.ModelProto:
    """The graph with inputs `dn` uint16 [B, C, S, S] and `metadata` float32 [B, 4, 2].

    Outputs, float32: `mean` (of all tokens), `cls`, `patch_mean` [B, m], `patch_mean_std` [B, 2 m]
    (population standard deviation), `tokens` [B, N, m]; all before the final LayerNorm. And `routing`
    [B, depth, most experts of a layer]: the share of a layer's choices, `top_k` for each token, that went to
    each expert; zero for experts that a layer does not have.

    Args:
        fused: the weights.
        half: fp16 with islands of fp32; inputs and outputs stay the same.

    Raises:
        GraphError: a weight beyond the range of fp16.
    """
    cfg = fused.config
    g = GraphNodes(half)
    x = _tokens(g, fused)
    for i, layer in enumerate(fused.layers):
        x = _layer(g, f"layer.{i}", x, fused, layer)
    g.node("Reshape", [x, g.shape(-1, cfg.num_tokens, cfg.embed_dim)], "tokens", "tokens")
    _poolings(g, cfg.num_tokens)
    routing(g, fused)
    B, C, S = "B", cfg.in_channels, cfg.image_size
    graph = helper.make_graph(
        g.nodes,
        "landmoe_encoder",
        [
            helper.make_tensor_value_info("dn", TensorProto.UINT16, [B, C, S, S]),
            helper.make_tensor_value_info("metadata", TensorProto.FLOAT, [B, NUM_METADATA_TOKENS, 2]),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [B, *shape])
            for name, shape in (shapes(cfg) | {ROUTING: (cfg.depth, max(cfg.num_experts))}).items()
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in g.constants.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="landmoe",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _tokens(g: GraphNodes, fused: FusedEncoder) -> str:
    """Raw inputs to the first layer's input, [B N, m]."""
    cfg = fused.config
    C, p, s, L, m = cfg.in_channels, cfg.patch_size, cfg.grid, cfg.num_patches, cfg.embed_dim
    cut = g.node("Reshape", ["dn", g.shape(-1, C, s, p, s, p)], "patches.cut")
    # As uint16, which is half the bytes of float32: [B, row, col, C, p, p].
    cut = g.node("Transpose", [cut], "patches.order", perm=[0, 2, 4, 1, 3, 5])
    rows = g.node("Reshape", [cut, g.shape(-1, C * p * p)], "patches.rows")  # [B L, C p p]
    values = g.node("Cast", [rows], "patches.float", to=TensorProto.FLOAT)
    mean = g.constant("patches.mean", np.repeat(fused.mean, p * p))
    centred = g.node("Sub", [values, mean], "patches.centred")
    weights = fused.patches
    if g.half:
        # Folding 1 / std has made these weights so small that fp16 would lose digits, and the values are
        # too large for it. Powers of two change places between them, which is exact.
        size = np.exp2(np.floor(np.log2(np.abs(weights).max(axis=1).clip(np.finfo(np.float32).tiny))))
        scale = g.constant("patches.scale", size.astype(np.float32))
        centred = g.narrow(g.node("Mul", [centred, scale], "patches.scaled"))
        weights = weights / size[:, None]
    weight = g.weight("patches.weight", weights)
    projected = g.widen(g.node("Gemm", [centred, weight], "patches.projected"))  # [B L, m]
    patches = g.node("Reshape", [projected, g.shape(-1, L, m)], "patches.tokens")
    constant = g.constant("patches.constant", fused.patch_constant)
    patches = g.node("Add", [patches, constant], "patches.placed")

    flat = g.node("Reshape", ["metadata", g.shape(-1, 2 * NUM_METADATA_TOKENS)], "metadata.flat")
    constants = [
        g.constant("metadata.projected.weight", fused.metadata),
        g.constant("metadata.projected.bias", fused.metadata_constant),
    ]
    extra = g.node("Gemm", [flat, *constants], "metadata.projected")
    extra = g.node("Reshape", [extra, g.shape(-1, NUM_EXTRA_TOKENS, m)], "metadata.tokens")
    joined = g.node("Concat", [extra, patches], "joined", axis=1)
    return g.node("Reshape", [joined, g.shape(-1, m)], "embedded")


def _layer(g: GraphNodes, name: str, x: str, fused: FusedEncoder, layer: FusedLayer) -> str:
    m = fused.config.embed_dim
    y = g.normalise(x, layer.epsilon[0], f"{name}.norm1", m)
    x = g.node("Add", [x, attention(g, name, y, fused, layer)], f"{name}.attended")
    y = g.normalise(x, layer.epsilon[1], f"{name}.norm2", m)
    return g.node("Add", [x, experts(g, name, y, layer, fused.config.top_k)], f"{name}.mixed")


def _poolings(g: GraphNodes, tokens: int) -> None:
    """From `tokens` [B, N, m]; the engine fetches only the output that is asked for.

    Means are products with constant rows: a `ReduceMean` sums in another order when the batch is one tile.
    """
    rows = np.zeros((2, tokens), np.float32)
    rows[0] = 1 / tokens
    rows[1, NUM_EXTRA_TOKENS:] = 1 / (tokens - NUM_EXTRA_TOKENS)
    both = g.node("MatMul", [g.constant("pool.rows", rows), "tokens"], "pool.means")  # [B, 2, m]
    of_all, of_patches = g.split(both, [1, 1], "pool.split", ("all", "patches"), axis=1)  # [B, 1, m]
    axis = g.axis(1)
    g.node("Squeeze", [of_all, axis], "mean")
    g.node("Squeeze", [of_patches, axis], "patch_mean")
    g.node("Gather", ["tokens", g.constant("cls.index", np.array(CLS_TOKEN))], "cls", axis=1)
    deviation = g.node("Sub", ["tokens", of_patches], "pool.deviation")
    square = g.node("Mul", [deviation, deviation], "pool.square")
    variance = g.node("MatMul", [g.constant("pool.patch_row", rows[1:]), square], "pool.variance")
    std = g.node("Squeeze", [g.node("Sqrt", [variance], "pool.std"), axis], "patch_std")
    g.node("Concat", ["patch_mean", std], "patch_mean_std", axis=-1)
