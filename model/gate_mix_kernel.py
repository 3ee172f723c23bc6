"""The Triton kernel of gate_mix.py; importing this needs Triton."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def mix_top_two(
    wide: Any,
    logits: Any,
    mixed: Any,
    tokens: Any,
    E: tl.constexpr,
    H: tl.constexpr,
    EXPERTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """ROWS tokens a program; EXPERTS and COLUMNS are E and H rounded up to powers of two."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < tokens
    expert = tl.arange(0, EXPERTS)
    inside = real[:, None] & (expert < E)[None, :]
    scores = tl.load(logits + row[:, None] * E + expert[None, :], mask=inside, other=-1e30)
    first = tl.argmax(scores, axis=1)  # ties: the lowest index
    best = tl.max(scores, axis=1)
    rest = tl.where(expert[None, :] == first[:, None], -2e30, scores)
    second = tl.argmax(rest, axis=1)
    weight = tl.exp(tl.max(rest, axis=1) - best)
    gate_first = 1.0 / (1.0 + weight)
    gate_second = weight / (1.0 + weight)

    column = tl.arange(0, COLUMNS)
    mask = real[:, None] & (column < H)[None, :]
    start = wide + row[:, None] * ((E + 1) * H) + column[None, :]
    one = tl.load(start + first[:, None] * H, mask=mask, other=0.0).to(tl.float32)
    two = tl.load(start + second[:, None] * H, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(start + E * H, mask=mask, other=0.0).to(tl.float32)
    total = gate_first[:, None] * one * tl.sigmoid(one) + gate_second[:, None] * two * tl.sigmoid(two)
    tl.store(mixed + row[:, None] * H + column[None, :], (total * v).to(mixed.dtype.element_ty), mask=mask)
