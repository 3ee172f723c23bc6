"""What the device can do at most: moving bytes and multiplying matrices. Engines are compared with these."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from model.config import ModelConfig
from model.measurement import Figures, Measure, Of, of

_MATMULS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def ceilings(
    config: ModelConfig, device: torch.device, *, seconds: float, quick: bool = False
) -> dict[Of, Measure]:
    """Rates of plain operations, in GB/s and TFLOP/s.

    Args:
        config: its widest product is among the matrices.
        device: what is measured.
        seconds: of each measurement.
        quick: with operands so small that the figures mean nothing.
    """
    cuda = device.type == "cuda"
    size = 1 << (16 if quick else 30 if cuda else 26)  # bytes; far beyond any cache
    side = 64 if quick else 8192 if cuda else 1024
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found: dict[Of, Measure] = {
        # Read and written.
        of(ceiling="copy on the device"): _rate(
            lambda: target.copy_(source), 2 * size / 1e9, "gb_per_s", seconds
        )
    }
    if cuda:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        for name, to, by in (("to", source, host), ("from", host, source)):
            found[of(ceiling=f"copy {name} the device")] = _rate(
                partial(to.copy_, by, non_blocking=True), size / 1e9, "gb_per_s", seconds
            )
    tokens = config.num_tokens * (2 if quick else 1024 if cuda else 32)
    wide = max((e + 1) * h for e, h in zip(config.num_experts, config.hidden_dims, strict=True))
    for name, dtype in _MATMULS.items():
        if not cuda and name in ("tf32", "fp16"):
            continue  # no such thing, or emulated
        for what, (n, k, m) in (
            ("square", (side, side, side)),
            ("the experts' first", (tokens, config.embed_dim, -(-wide // 16) * 16)),
        ):
            a = torch.randn(n, k, device=device).to(dtype)
            b = torch.randn(k, m, device=device).to(dtype)
            found[of(ceiling=f"product, {what}", numbers=name)] = _product(
                a, b, 2 * n * k * m / 1e12, seconds, tf32=name == "tf32"
            )
    return found


def repeated(run: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Calls for at least so long, after one that is not counted; how often, and for how long.

    The device works through what it was given while more is given to it, and is waited for at the end.
    """
    run()
    synchronise()
    count, batch = 0, 1
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(batch):
            run()
        count += batch
        synchronise()
        batch = min(2 * batch, 256)
    return count, elapsed


def synchronise() -> None:
    """Waits for the device; nothing where everything is done when it returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _rate(run: Callable[[], object], amount: float, unit: str, seconds: float) -> Measure:
    def measure() -> Figures:
        count, elapsed = repeated(run, seconds)
        return {unit: count * amount / elapsed}

    return measure


def _product(a: torch.Tensor, b: torch.Tensor, amount: float, seconds: float, *, tf32: bool) -> Measure:
    out = a @ b

    def measure() -> Figures:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            count, elapsed = repeated(lambda: torch.mm(a, b, out=out), seconds)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
        return {"tflop_per_s": count * amount / elapsed}

    return measure
