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

from model.config import NUM_EXTRA_TOKENS, NUM_METADATA_TOKENS
from model.fused import FusedEncoder, FusedLayer, Product
from model.graph_nodes import GraphNodes

OPSET = 20  # LayerNormalization and axes as inputs; read by every runtime of the last years
IR_VERSION = 10
OUTPUTS = ("mean", "cls", "patch_mean", "patch_mean_std", "tokens")
ROUTING = "routing"
CHOSEN = "routing.chosen"  # inside: 1 where a token's gate chose an expert, fp32 [B N, experts of all layers]
MASKED = np.float32(-1e30)  # below every logit; finite, because infinities slow some kernels down


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
    most = _routing(g, fused)
    B, C, S, m = "B", cfg.in_channels, cfg.image_size, cfg.embed_dim
    shapes: dict[str, list[str | int]] = {
        "mean": [B, m],
        "cls": [B, m],
        "patch_mean": [B, m],
        "patch_mean_std": [B, 2 * m],
        "tokens": [B, cfg.num_tokens, m],
        ROUTING: [B, cfg.depth, most],
    }
    graph = helper.make_graph(
        g.nodes,
        "landmoe_encoder",
        [
            helper.make_tensor_value_info("dn", TensorProto.UINT16, [B, C, S, S]),
            helper.make_tensor_value_info("metadata", TensorProto.FLOAT, [B, NUM_METADATA_TOKENS, 2]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
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
    x = g.node("Add", [x, _attention(g, name, y, fused, layer)], f"{name}.attended")
    y = g.normalise(x, layer.epsilon[1], f"{name}.norm2", m)
    return g.node("Add", [x, _experts(g, name, y, layer, fused.config.top_k)], f"{name}.mixed")


def _attention(g: GraphNodes, name: str, x: str, fused: FusedEncoder, layer: FusedLayer) -> str:
    cfg = fused.config
    N, H, G, d = cfg.num_tokens, cfg.num_heads, cfg.num_groups, layer.head_dim
    R = H // G
    qkv = g.gemm(g.narrow(x), layer.qkv, f"{name}.qkv")
    groups = g.node("Reshape", [qkv, g.shape(-1, N, G, (R + 2) * d)], f"{name}.groups")
    groups = g.node("Transpose", [groups], f"{name}.by_group", perm=[0, 2, 1, 3])  # [B, G, N, (R + 2) d]
    q, k, v = g.split(groups, [R * d, d, d], f"{name}.split_groups", ("q", "k", "v"), axis=3)
    # The R heads of a token and group under one another: [B, G, N R, d].
    q = g.node("Reshape", [q, g.shape(-1, G, N * R, d)], f"{name}.queries")
    k = g.node("Transpose", [k], f"{name}.keys", perm=[0, 1, 3, 2])
    scores = g.node("MatMul", [q, k], f"{name}.scores")  # [B, G, N R, N]
    weights = g.node("Softmax", [scores], f"{name}.attention", axis=-1)
    y = g.node("MatMul", [weights, v], f"{name}.values")
    y = g.node("Reshape", [y, g.shape(-1, G, N, R * d)], f"{name}.value_groups")
    y = g.node("Transpose", [y], f"{name}.by_token", perm=[0, 2, 1, 3])
    y = g.node("Reshape", [y, g.shape(-1, H * d)], f"{name}.values_flat")  # [B N, m]
    return g.widen(g.gemm(y, layer.out, f"{name}.out"))


def _experts(g: GraphNodes, name: str, x: str, layer: FusedLayer, top_k: int) -> str:
    E, h = layer.experts, layer.hidden
    w, v, logits = _experts_in(g, name, x, layer)
    sigmoid = g.node("Sigmoid", [w], f"{name}.sigmoid")
    active = g.node("Mul", [w, sigmoid], f"{name}.silu")
    active = g.node("Reshape", [active, g.shape(-1, E, h)], f"{name}.by_expert")
    if g.half:
        gates = g.narrow(_gates(g, name, logits, E, top_k))
        gates = g.node("Reshape", [gates, g.shape(-1, E, 1)], f"{name}.gate_column")
        weighted = g.node("Mul", [active, gates], f"{name}.weighted")
        mixed = g.node("ReduceSum", [weighted, g.axis(1)], f"{name}.experts_sum", keepdims=0)  # [B N, h]
    else:  # one small product for each token: on a CPU faster than reading the experts' results twice
        gates = _sparse_gates(g, name, logits, E, top_k)
        gates = g.node("Reshape", [gates, g.shape(-1, 1, E)], f"{name}.gate_row")
        mixed = g.node("MatMul", [gates, active], f"{name}.experts_mix")
        mixed = g.node("Reshape", [mixed, g.shape(-1, h)], f"{name}.experts_sum")  # [B N, h]
    product = g.node("Mul", [mixed, v], f"{name}.gated")
    return g.widen(g.gemm(product, layer.experts_out, f"{name}.experts_out"))


def _experts_in(g: GraphNodes, name: str, x: str, layer: FusedLayer) -> list[str]:
    """Experts' inputs [B N, E h], V's [B N, h] and the gates' logits [B N, E]; the logits always in fp32."""
    E, h = layer.experts, layer.hidden
    weight, bias = layer.experts_in.weight, layer.experts_in.bias
    if not g.half:  # three products: on a CPU splitting the result of one costs more than reading x again
        names, ends = ("experts_w", "experts_v", "logits"), np.cumsum([E * h, h])
        weights, biases = np.split(weight, ends, axis=1), np.split(bias, ends)
        return [
            g.gemm(x, Product(np.ascontiguousarray(w), b), f"{name}.{part}")
            for part, w, b in zip(names, weights, biases, strict=True)
        ]
    wide = g.gemm(g.narrow(x), Product(weight[:, :-E], bias[:-E]), f"{name}.experts_in")
    w, v = g.split(wide, [E * h, h], f"{name}.split_experts", ("w", "v"), axis=-1)
    gate = [
        g.constant(f"{name}.gate.weight", np.ascontiguousarray(weight[:, -E:])),
        g.constant(f"{name}.gate.bias", bias[-E:]),
    ]
    return [w, v, g.node("Gemm", [x, *gate], f"{name}.logits")]


def _gates(g: GraphNodes, name: str, logits: str, experts: int, top_k: int) -> str:
    """Softmax over the `top_k` largest logits of a row, zero elsewhere: [B N, E] → [B N, E].

    The largest is found and masked, then the largest of the rest. Of equal ones the first is taken; which of
    several equal last-best experts `torch.topk` takes is undefined, and parity.py counts such tiles.
    """
    numbers = g.constant(f"experts.{experts}", np.arange(experts, dtype=np.int64))
    masked = g.constant("masked", np.array(MASKED))
    chosen, rest = "", logits
    for k in range(top_k):
        best = g.node("ArgMax", [rest], f"{name}.best.{k}", axis=-1, keepdims=1)
        is_best = g.node("Equal", [numbers, best], f"{name}.is_best.{k}")
        chosen = g.node("Or", [chosen, is_best], f"{name}.chosen.{k}") if chosen else is_best
        if k < top_k - 1:
            rest = g.node("Where", [is_best, masked, rest], f"{name}.rest.{k}")
    kept = g.node("Where", [chosen, logits, masked], f"{name}.kept")
    return g.node("Softmax", [kept], f"{name}.gates", axis=-1)


def _sparse_gates(g: GraphNodes, name: str, logits: str, experts: int, top_k: int) -> str:
    """The same as `_gates` in fewer nodes, which count on a CPU; `TopK` too prefers the first of equals."""
    closed = f"closed_gates.{experts}"
    if closed not in g.written:  # zeros [B N, E], once for all layers that have as many experts
        rows = g.node("Shape", [logits], f"{closed}.shape")
        g.node("ConstantOfShape", [rows], closed)
    top, index = f"{name}.top", f"{name}.top_index"
    g.node(
        "TopK", [logits, g.constant(f"top.{top_k}", np.array([top_k], np.int64))], top, top, index, axis=-1
    )
    best = g.node("Softmax", [top], f"{name}.top_gates", axis=-1)
    # So that a gate that has underflowed is still told from one that is closed.
    best = g.node(
        "Max", [best, g.constant("least", np.array(np.finfo(np.float32).tiny))], f"{name}.open_gates"
    )
    return g.node("ScatterElements", [closed, index, best], f"{name}.gates", axis=1)


def _routing(g: GraphNodes, fused: FusedEncoder) -> int:
    """How often the gates chose each expert, from those of all layers at once; returns the most experts.

    Whole numbers, exact in any order of summation.
    """
    cfg, experts = fused.config, [layer.experts for layer in fused.layers]
    names = [f"layer.{i}" for i in range(len(experts))]
    if g.half:
        last = f"chosen.{cfg.top_k - 1}" if cfg.top_k > 1 else "is_best.0"
        gates = g.node("Concat", [f"{name}.{last}" for name in names], "routing.gates", axis=1)
        chosen = g.node("Cast", [gates], CHOSEN, to=TensorProto.FLOAT)
    else:
        gates = g.node("Concat", [f"{name}.gates" for name in names], "routing.gates", axis=1)
        chosen = g.node("Sign", [gates], CHOSEN)
    by_tile = g.node("Reshape", [chosen, g.shape(-1, cfg.num_tokens, sum(experts))], "routing.tokens")
    counts = g.node("ReduceSum", [by_tile, g.axis(1)], "routing.counts", keepdims=0)
    counts = g.node("Pad", [counts, g.constant("routing.pads", np.array([0, 0, 0, 1]))], "routing.padded")
    ends, most = np.cumsum(experts), max(experts)
    columns = np.full((len(experts), most), ends[-1])  # where a layer has no such expert, the zero at the end
    for row, end, count in zip(columns, ends, experts, strict=True):
        row[:count] = np.arange(end - count, end)
    by_layer = g.node("Gather", [counts, g.constant("routing.columns", columns)], "routing.by_layer", axis=1)
    choice = g.constant("routing.choice", np.array(1 / (cfg.top_k * cfg.num_tokens), np.float32))
    g.node("Mul", [by_layer, choice], ROUTING)
    return most


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
    g.node("Gather", ["tokens", g.constant("cls.index", np.array(NUM_EXTRA_TOKENS - 1))], "cls", axis=1)
    deviation = g.node("Sub", ["tokens", of_patches], "pool.deviation")
    square = g.node("Mul", [deviation, deviation], "pool.square")
    variance = g.node("MatMul", [g.constant("pool.patch_row", rows[1:]), square], "pool.variance")
    std = g.node("Squeeze", [g.node("Sqrt", [variance], "pool.std"), axis], "patch_std")
    g.node("Concat", ["patch_mean", std], "patch_mean_std", axis=-1)
