"""The fused encoder in PyTorch is the network, and in half precision what the half-precision ONNX is."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from model import checkpoint
from model.config import SIZES
from model.deviation import cosine
from model.fused import fuse
from model.fused_torch import FusedNetwork
from model.gate_mix import kernel_mix, mix
from model.graph import to_onnx
from model.padding import padded
from tests.model.networks import inputs, run, scrambled, session, unfused


def embed(network: FusedNetwork, dn: np.ndarray, metadata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        mean, tokens = network(torch.from_numpy(dn), torch.from_numpy(metadata))
    return mean.numpy(), tokens.numpy()


@pytest.mark.parametrize("pad", [False, True])
def test_single_precision_is_the_network(pad: bool) -> None:
    encoder = scrambled().model.encoder.eval()
    fused = padded(fuse(encoder)) if pad else fuse(encoder)
    dn, metadata = inputs(3)
    exact = unfused(encoder, dn, metadata)
    mean, tokens = embed(FusedNetwork(fused), dn, metadata)
    assert np.abs(tokens - exact).max() <= 1e-5 * np.abs(exact).max()
    assert np.abs(mean - exact.mean(axis=1)).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    encoder = checkpoint.initialise(SIZES["XXS"], 0).model.encoder.eval()
    dn, metadata = inputs(3)
    dn[0], dn[1] = 65535, 1  # beyond what fp16 holds
    exact = unfused(encoder, dn, metadata)
    mean, tokens = embed(FusedNetwork(padded(fuse(encoder)), dtype), dn, metadata)
    assert mean.dtype == tokens.dtype == np.float32
    assert cosine(mean, exact.mean(axis=1)).min() > 0.9995
    assert np.median(cosine(tokens, exact)) > 0.9999


def test_half_precision_in_torch_says_what_to_expect_of_onnx() -> None:
    """They differ from each other no more than each does from fp32."""
    encoder = checkpoint.initialise(SIZES["XXS"], 0).model.encoder.eval()
    fused = padded(fuse(encoder))
    dn, metadata = inputs(4)
    mean, _ = embed(FusedNetwork(fused, torch.float16), dn, metadata)
    found = run(session(to_onnx(fused, half=True).SerializeToString()), dn, metadata)["mean"]
    assert cosine(mean, found).min() > 0.99999


def test_mix_is_what_the_experts_compute() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(40, 4 * 5, generator=generator)
    logits = torch.randn(40, 3, generator=generator)
    found = mix(wide, logits, 2)
    for row in range(40):
        first, second = logits[row].argsort(descending=True)[:2].tolist()
        gate = torch.sigmoid(logits[row, first] - logits[row, second])
        parts = torch.nn.functional.silu(wide[row]).view(4, 5)
        want = (gate * parts[first] + (1 - gate) * parts[second]) * wide[row, 15:]
        torch.testing.assert_close(found[row], want)


def test_kernel_is_for_two_experts() -> None:
    with pytest.raises(ValueError, match="mixes 2 experts a token, not 1"):
        kernel_mix(torch.zeros(1, 8), torch.zeros(1, 3), 1)


_KERNEL = """
import torch
from model.gate_mix import kernel_mix, mix

for tokens, experts, hidden, dtype, bound in (
    (50, 3, 16, torch.float32, 1e-6), (33, 5, 13, torch.float32, 1e-6), (1, 4, 144, torch.float32, 1e-6),
    (50, 3, 72, torch.float16, 2e-3), (50, 5, 72, torch.bfloat16, 2e-2),
):
    generator = torch.Generator().manual_seed(tokens)
    wide = torch.randn(tokens, (experts + 1) * hidden, generator=generator).to(dtype)
    logits = 4 * torch.randn(tokens, experts, generator=generator)
    plain, kernel = (each(wide, logits, 2).float() for each in (mix, kernel_mix))
    assert kernel.shape == (tokens, hidden)
    assert (plain - kernel).abs().max() <= bound * plain.abs().max(), (tokens, experts, hidden, dtype)
print("equal")
"""


def test_kernel_gives_what_the_plain_mix_gives() -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported, hence the other process."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _KERNEL], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
