"""The machine's matrix rate: what an engine could give at most if it did nothing but its products.

Every thread multiplies matrices of its own, as the engine's workers do, in the shapes of the network at a
batch of four tiles and in larger ones; the best shape counts. fp32 is measured with NumPy's BLAS, bf16 with
OpenVINO where it is installed and the CPU has instructions for it.

It runs in a process of its own, because a BLAS takes its number of threads from the environment it starts in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Products = tuple[
    str, float, Sequence[Callable[[], Any]]
]  # numbers, operations of a call, one call for each thread

# (rows, inner, columns). Rows of four tiles with the two widest products of size S, then squares.
_SHAPES = ((420, 144, 288), (420, 144, 720), (512, 512, 512), (768, 768, 768))
# (rows, width) of products in a chain, so that what is converted on the way in and out counts little.
_CHAINS = ((420, 144), (420, 288), (420, 768), (512, 512))
_CHAIN_LENGTH = 8
# Many short rounds, of which the best counts: the others were disturbed.
_SECONDS = 0.05
_ROUNDS = 12
_TIMEOUT_S = 120


def measure(threads: int) -> dict[str, float]:
    """GFLOP/s of all threads together, by the numbers multiplied: `fp32`, and `bf16` where it can be had.

    Args:
        threads: that multiply at once.

    Raises:
        RuntimeError: the measuring process failed; says why.
    """
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(  # noqa: S603  # this module, with a number
        [sys.executable, "-m", "service.benchmarks.gemm_peak", str(threads)],
        env=os.environ | single,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise RuntimeError(f"the matrix rate could not be measured: {reason}")
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def _main(threads: int) -> None:
    products = [_numpy_products(*shape, threads) for shape in _SHAPES]
    if importlib.util.find_spec("openvino"):
        products += _bf16_products(threads)
    best: dict[str, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        for _, _, calls in products:
            list(pool.map(lambda call: call(), calls))
        for _ in range(_ROUNDS):  # in turns, so that what else the machine does falls on all
            for numbers, operations, calls in products:
                best[numbers] = max(best.get(numbers, 0), _rate(pool, operations, calls))
    print(json.dumps({numbers: round(rate / 1e9, 1) for numbers, rate in best.items()}))


def _rate(pool: ThreadPoolExecutor, operations: float, calls: Sequence[Callable[[], Any]]) -> float:
    """Operations a second of all threads, until the last ended."""
    started = time.perf_counter()

    def repeat(call: Callable[[], Any]) -> int:
        times = 0
        while time.perf_counter() < started + _SECONDS:
            call()
            times += 1
        return times

    return operations * sum(pool.map(repeat, calls)) / (time.perf_counter() - started)


def _numpy_products(rows: int, inner: int, columns: int, threads: int) -> Products:
    def product() -> Callable[[], Any]:
        left, right, out = _random(rows, inner), _random(inner, columns), _random(rows, columns)
        return lambda: np.matmul(left, right, out=out)

    return "fp32", 2 * rows * inner * columns, [product() for _ in range(threads)]


def _bf16_products(threads: int) -> list[Products]:
    import openvino as ov
    from openvino import opset13 as ops

    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return []
    options = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    products: list[Products] = []
    for rows, width in _CHAINS:
        first = ops.parameter([rows, width], ov.Type.f32)
        last = first
        for _ in range(_CHAIN_LENGTH):
            last = ops.matmul(last, ops.constant(_random(width, width)), False, False)
        compiled = core.compile_model(ov.Model([last], [first]), "CPU", options)
        requests = [compiled.create_infer_request() for _ in range(threads)]
        for request in requests:
            request.set_input_tensor(ov.Tensor(_random(rows, width)))
        calls = [request.infer for request in requests]
        products.append(("bf16", 2 * _CHAIN_LENGTH * rows * width * width, calls))
    return products


def _random(rows: int, columns: int) -> NDArray[np.float32]:
    # Of variance 1 / width, so that a chain of products neither grows nor fades.
    values = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    return values / np.float32(columns**0.5)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
