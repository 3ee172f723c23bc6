"""The mix between the experts' two products: softmax of the best gates, SiLU, weighted sum, product with V.

Written out it is a dozen elementwise kernels that each read and write the widest activation of a layer. As
one Triton kernel it reads only the chosen experts' columns and writes the result: (k + 1) h + h values a
token instead of several times (E + 1) h. `mix` is the plain form, which every device has; `kernel_mix` is the
other, where Triton and a GPU are. Both compute in fp32 what they read, and round once when they write.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 16  # tokens of one program: enough columns in flight to hide the gather

Mix = Callable[[Tensor, Tensor, int], Tensor]
"""wide [T, (E + 1) h] (W_1 x .. W_E x, V x) and logits [T, E] of fp32, and k, to [T, h] in wide's numbers."""


def available() -> str:
    """Why `kernel_mix` cannot be used; empty where it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return "" if torch.cuda.is_available() else "no CUDA device"


def mix(wide: Tensor, logits: Tensor, top_k: int) -> Tensor:
    """See `Mix`."""
    experts = logits.shape[-1]
    hidden = wide.shape[-1] // (experts + 1)
    best, index = logits.topk(top_k, dim=-1)
    gates = torch.zeros_like(logits).scatter(-1, index, best.softmax(dim=-1))  # [T, E]
    inner, v = wide[:, : experts * hidden], wide[:, experts * hidden :]
    active = F.silu(inner.float()).view(-1, experts, hidden)
    mixed: Tensor = (gates.unsqueeze(-1) * active).sum(dim=1)  # [T, h]
    return (mixed * v.float()).to(wide.dtype)


def kernel_mix(wide: Tensor, logits: Tensor, top_k: int) -> Tensor:
    """See `Mix`; contiguous inputs. Of equal logits the first is taken.

    Raises:
        ValueError: another number of experts a token than two.
    """
    if top_k != 2:
        raise ValueError(f"the kernel mixes 2 experts a token, not {top_k}")
    tokens, experts = logits.shape
    hidden = wide.shape[-1] // (experts + 1)
    mixed = wide.new_empty(tokens, hidden)
    _kernel()[(-(-tokens // ROWS),)](
        wide, logits, mixed, tokens,
        E=experts, H=hidden, EXPERTS=_power_of_two(experts), COLUMNS=_power_of_two(hidden), ROWS=ROWS,
    )  # fmt: skip
    return mixed


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _kernel() -> Any:
    """Imported when first used: Triton is an optional part of PyTorch, and serving has neither."""
    from model.gate_mix_kernel import mix_top_two

    return mix_top_two
