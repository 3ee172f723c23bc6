"""Attention in the inference graph: once for CPUs in fp32, once for GPUs in fp16 (graph.py).

On a CPU a product takes as long as its result is wide in registers of 16 numbers, and a head is 18 wide. So
everything is transposed there: tokens are the columns, of all heads of a group side by side (210 for size S).
That also puts a query's weights into a column: its sum is added up 16 queries at a time, and divides d values
instead of N weights. Softmax subtracts a row's largest score, so that no exponential overflows; weights bound
the scores, and where they bound them well below that, nothing is subtracted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.fused import FusedEncoder, FusedLayer, Product
from model.graph_nodes import GraphNodes

# exp(75) = 4e32, summed over tokens and times a value, is far from what fp32 ends at; so is exp(-75).
LARGEST_SCORE = 75.0


def attention(g: GraphNodes, name: str, x: str, fused: FusedEncoder, layer: FusedLayer) -> str:
    """Attention's contribution to the residual stream, fp32 [B N, m], of the normalised x [B N, m]."""
    return (_half_attention if g.half else _attention)(g, name, x, fused, layer)


def _attention(g: GraphNodes, name: str, x: str, fused: FusedEncoder, layer: FusedLayer) -> str:
    cfg = fused.config
    N, H, G, d = cfg.num_tokens, cfg.num_heads, cfg.num_groups, layer.head_dim
    R = H // G
    inner = (R + 2) * d  # columns of a group: its heads, its key and its value
    order = _columns_first(G, R, d, inner)
    qkv = Product(np.ascontiguousarray(layer.qkv.weight[:, order]), layer.qkv.bias[order])
    y = g.gemm(x, qkv, f"{name}.qkv")
    y = g.node("Reshape", [y, g.shape(-1, N, G * inner)], f"{name}.by_token")
    y = g.node("Transpose", [y], f"{name}.by_column", perm=[0, 2, 1])  # [B, G (R + 2) d, N]
    y = g.node("Reshape", [y, g.shape(-1, G, inner, N)], f"{name}.groups")
    q, k, v = g.split(y, [R * d, d, d], f"{name}.split_groups", ("q", "k", "v"), axis=2)
    # The heads of a group side by side: [B, G, d, R N].
    q = g.node("Reshape", [q, g.shape(-1, G, d, R * N)], f"{name}.queries")
    k = g.node("Transpose", [k], f"{name}.keys", perm=[0, 1, 3, 2])
    scores = g.node("MatMul", [k, q], f"{name}.scores")  # [B, G, N, R N]
    if largest_score(fused, layer) > LARGEST_SCORE:
        largest = g.node("ReduceMax", [scores, g.axis(2)], f"{name}.largest", keepdims=1)
        scores = g.node("Sub", [scores, largest], f"{name}.lowered")
    weights = g.node("Exp", [scores], f"{name}.exp")
    sums = g.node("ReduceSum", [weights, g.axis(2)], f"{name}.sums", keepdims=1)  # [B, G, 1, R N]
    y = g.node("MatMul", [v, weights], f"{name}.values")  # [B, G, d, R N]
    y = g.node("Div", [y, sums], f"{name}.attention")
    y = g.node("Reshape", [y, g.shape(-1, H * d, N)], f"{name}.value_columns")  # rows: group, d, head
    y = g.node("Transpose", [y], f"{name}.value_tokens", perm=[0, 2, 1])
    y = g.node("Reshape", [y, g.shape(-1, H * d)], f"{name}.values_flat")  # [B N, m]
    rows = np.arange(H * d).reshape(G, R, d).transpose(0, 2, 1).ravel()
    return g.gemm(y, Product(np.ascontiguousarray(layer.out.weight[rows]), layer.out.bias), f"{name}.out")


def _columns_first(groups: int, heads: int, d: int, inner: int) -> NDArray[np.intp]:
    """The order of QKV's columns in which a group's queries stand by column, then by head."""
    order = np.arange(groups * inner).reshape(groups, inner)
    queries = order[:, : heads * d].reshape(groups, heads, d).transpose(0, 2, 1)
    order[:, : heads * d] = queries.reshape(groups, heads * d).copy()
    return order.ravel()


def largest_score(fused: FusedEncoder, layer: FusedLayer) -> float:
    """A bound on every |score| of the layer, whatever the tile.

    A score is [n, 1] M [n', 1] with M = [Wq; bq] [Wk; bk]^T and normalised rows n, n', whose squares sum to m
    at most: it cannot exceed the largest singular value of M times m + 1.
    """
    G, d, m = fused.config.num_groups, layer.head_dim, fused.config.embed_dim
    both = np.vstack([layer.qkv.weight, layer.qkv.bias]).astype(np.float64).reshape(m + 1, G, -1, d)
    queries = both[:, :, :-2].transpose(1, 2, 0, 3)  # [G, R, m + 1, d]
    keys = both[:, :, -2].transpose(1, 2, 0)  # [G, d, m + 1]
    return float(np.linalg.norm(queries @ keys[:, None], 2, axis=(-2, -1)).max()) * (m + 1)


def _half_attention(g: GraphNodes, name: str, x: str, fused: FusedEncoder, layer: FusedLayer) -> str:
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
