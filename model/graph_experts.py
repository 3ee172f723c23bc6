"""Experts and their gates in the inference graph: once for CPUs in fp32, once for GPUs in fp16 (graph.py).

All experts' first products are one, for every token: cheaper than to sort tokens by expert. What follows it
is elementwise, and on a CPU done only for the experts that were chosen. On a GPU it is done for all: there it
costs less than to gather.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from model.fused import FusedEncoder, FusedLayer, Product
from model.graph_nodes import GraphNodes
from model.outputs import ROUTING

CHOSEN = "routing.chosen"  # inside: 1 where a token's gate chose an expert, fp32 [B N, experts of all layers]
MASKED = np.float32(-1e30)  # below every logit; finite, because infinities slow some kernels down


def experts(g: GraphNodes, name: str, x: str, layer: FusedLayer, top_k: int) -> str:
    """The experts' contribution to the residual stream, fp32 [B N, m], of the normalised x [B N, m]."""
    w, v, logits = _experts_in(g, name, x, layer)
    mix = _mix_of_all if g.half else _mix_of_chosen
    product = g.node("Mul", [mix(g, name, w, logits, layer, top_k), v], f"{name}.gated")
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


def _silu(g: GraphNodes, w: str, name: str, suffix: str) -> str:
    sigmoid = g.node("Sigmoid", [w], f"{name}.sigmoid{suffix}")
    return g.node("Mul", [w, sigmoid], f"{name}.silu{suffix}")


def _mix_of_chosen(g: GraphNodes, name: str, w: str, logits: str, layer: FusedLayer, top_k: int) -> str:
    """Sum over the chosen experts of gate times SiLU, [B N, h]; one after the other, in their order."""
    top, index = f"{name}.top", f"{name}.top_index"  # [B N, top_k]; of equal logits the first
    g.node(
        "TopK", [logits, g.constant(f"top.{top_k}", np.array([top_k], np.int64))], top, top, index, axis=-1
    )
    gates = g.node("Softmax", [top], f"{name}.gates", axis=-1)
    places = tuple(map(str, range(top_k)))
    indices = g.split(index, [1] * top_k, f"{name}.choice", places, axis=-1)
    columns = g.split(gates, [1] * top_k, f"{name}.gate", places, axis=-1)
    w = g.node("Reshape", [w, g.shape(-1, layer.experts, layer.hidden)], f"{name}.by_expert")
    mixed = ""
    for place, index, column in zip(places, indices, columns, strict=True):
        chosen = g.node("GatherND", [w, index], f"{name}.chosen.{place}", batch_dims=1)  # [B N, h]
        active = _silu(g, chosen, name, f".{place}")
        weighted = g.node("Mul", [active, column], f"{name}.weighted.{place}")
        mixed = g.node("Add", [mixed, weighted], f"{name}.mix.{place}") if mixed else weighted
    return mixed


def _mix_of_all(g: GraphNodes, name: str, w: str, logits: str, layer: FusedLayer, top_k: int) -> str:
    """The same, of all experts with their gates, most of them zero."""
    active = _silu(g, w, name, "")
    active = g.node("Reshape", [active, g.shape(-1, layer.experts, layer.hidden)], f"{name}.by_expert")
    gates = g.narrow(_gates(g, name, logits, layer.experts, top_k))
    gates = g.node("Reshape", [gates, g.shape(-1, layer.experts, 1)], f"{name}.gate_column")
    weighted = g.node("Mul", [active, gates], f"{name}.weighted")
    return g.node("ReduceSum", [weighted, g.axis(1)], f"{name}.experts_sum", keepdims=0)


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


def routing(g: GraphNodes, fused: FusedEncoder) -> None:
    """How often the gates chose each expert, from those of all layers at once.

    Whole numbers, exact in any order of summation.
    """
    cfg, experts = fused.config, [layer.experts for layer in fused.layers]
    names = [f"layer.{i}" for i in range(len(experts))]
    if g.half:
        last = f"chosen.{cfg.top_k - 1}" if cfg.top_k > 1 else "is_best.0"
        gates = g.node("Concat", [f"{name}.{last}" for name in names], "routing.gates", axis=1)
        chosen = g.node("Cast", [gates], CHOSEN, to=TensorProto.FLOAT)
    else:
        chosen = _chosen(g, names, experts, cfg.top_k)
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


def _chosen(g: GraphNodes, names: list[str], experts: list[int], top_k: int) -> str:
    """Ones in the columns that the indices of all layers name, [B N, experts of all layers]."""
    index = g.node("Concat", [f"{name}.top_index" for name in names], "routing.index", axis=1)
    # The column of a layer's first expert.
    first = np.repeat(np.cumsum([0, *experts[:-1]]), top_k).astype(np.int64)
    index = g.node("Add", [index, g.constant("routing.first", first)], "routing.columns_chosen")
    rows = g.node("Shape", [index], "routing.rows", start=0, end=1)
    shape = g.node(
        "Concat",
        [rows, g.constant("routing.width", np.array([sum(experts)], np.int64))],
        "routing.shape",
        axis=0,
    )
    none = g.node("ConstantOfShape", [shape], "routing.none")
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    ones = g.node("ConstantOfShape", [g.node("Shape", [index], "routing.choices")], "routing.ones", value=one)
    return g.node("ScatterElements", [none, index, ones], CHOSEN, axis=1)
