"""The parameters that bring each runtime of this machine to a test, and a batch for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import openvino_session
from model.native import session as native

NO_KERNELS = native.unusable("fp32")
needs_kernels = pytest.mark.skipif(NO_KERNELS is not None, reason=str(NO_KERNELS))
NO_BF16 = native.unusable("bf16")
NO_OPENVINO = openvino_session.unusable()
needs_openvino = pytest.mark.skipif(NO_OPENVINO is not None, reason=f"precision=fast: {NO_OPENVINO}")
needs_bf16 = pytest.mark.skipif(None not in (NO_BF16, NO_OPENVINO), reason=f"{NO_BF16}; {NO_OPENVINO}")

# Exact and fast with what computes them; every promise of an engine holds for each.
EXACT = [pytest.param(True, id="kernels", marks=needs_kernels), pytest.param(False, id="onnxruntime")]
FAST = [
    pytest.param(True, id="kernels", marks=pytest.mark.skipif(NO_BF16 is not None, reason=str(NO_BF16))),
    pytest.param(False, id="openvino", marks=needs_openvino),
]


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    dn = rng.integers(7_000, 30_000, (size, 7, 40, 40), dtype=np.uint16)
    return dn, rng.normal(size=(size, 4, 2)).astype(np.float32)


def cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
