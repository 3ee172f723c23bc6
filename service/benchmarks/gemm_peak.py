"""The machine's matrix rate: what an engine could give at most if it did nothing but its products.

Every thread multiplies matrices of its own, as the engine's workers do, in the shapes of the network at a
batch of four tiles and in larger ones; the best shape counts. fp32 is measured with NumPy's BLAS, bf16 with
OpenVINO where it is installed and the CPU has instructions for it.

It runs in a process of its own, because a BLAS takes its number of threads from the environment it starts in.
The process stays, so that an engine and the products can be measured in turns of a tenth of a second: where a
machine's rate changes from one second to the next, only what ran side by side can be held against each other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Self, cast

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
TURN_S = 0.1  # that products are repeated for, and an engine beside them
_ROUNDS = 8  # of turns of every shape, whose median decides which is the best
_ALL = "all"
_TIMEOUT_S = 120  # of an answer; all shapes take about ten


class MatrixRate:
    """The measuring process; a context manager.

    Args:
        threads: that multiply at once.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> Self:
        single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(  # noqa: S603  # this module, with a number
            [sys.executable, "-m", "service.benchmarks.gemm_peak", str(self._threads)],
            env=os.environ | single,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=_TIMEOUT_S)  # its input ends, and so does it
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def all(self) -> dict[str, float]:
        """GFLOP/s of all threads together, by the numbers multiplied: `fp32`, and `bf16` where it can be had.

        Of the shape that is fastest in the median of some turns, which `turn` keeps to from then on.

        Raises:
            RuntimeError: the measuring process failed; says why.
        """
        rates: dict[str, float] = self._ask(_ALL)
        return rates

    def turn(self, numbers: str) -> float:
        """GFLOP/s of one turn, a tenth of a second; of `fp32` where others cannot be had.

        Raises:
            RuntimeError: the measuring process failed; says why.
        """
        rate: float = self._ask(numbers)
        return rate

    def _ask(self, what: str) -> Any:
        late = threading.Timer(_TIMEOUT_S, self._process.kill)
        late.start()
        try:
            print(what, file=self._process.stdin, flush=True)
            answer = cast(IO[str], self._process.stdout).readline()
        except BrokenPipeError:
            answer = ""
        finally:
            late.cancel()
        if answer:
            return json.loads(answer)
        said = self._process.communicate(timeout=_TIMEOUT_S)[1].strip().splitlines()
        reason = said[-1] if said else f"exit {self._process.returncode}"
        raise RuntimeError(f"the matrix rate could not be measured: {reason}")


def _main(threads: int) -> None:
    products = [_numpy_products(*shape, threads) for shape in _SHAPES]
    if importlib.util.find_spec("openvino"):
        products += _bf16_products(threads)
    with ThreadPoolExecutor(threads) as pool:
        best: dict[str, tuple[float, Products]] = {}
        for line in sys.stdin:
            if line.strip() == _ALL or not best:
                best = _best(pool, products)
            if line.strip() == _ALL:
                answer: Any = {numbers: round(rate, 1) for numbers, (rate, _) in best.items()}
            else:
                _, chosen = best.get(line.strip(), best["fp32"])
                answer = _turn(pool, chosen)
            print(json.dumps(answer), flush=True)


def _best(pool: ThreadPoolExecutor, products: Sequence[Products]) -> dict[str, tuple[float, Products]]:
    """The fastest products of each kind of numbers, and their GFLOP/s."""
    turns: list[list[float]] = [[] for _ in products]
    for _ in range(_ROUNDS):  # of all shapes, so that what else the machine does falls on all
        for each, rates in zip(products, turns, strict=True):
            rates.append(_turn(pool, each))
    best: dict[str, tuple[float, Products]] = {}
    for each, rates in zip(products, turns, strict=True):
        rate = statistics.median(rates)
        if rate > best.get(each[0], (0.0, each))[0]:
            best[each[0]] = rate, each
    return best


def _turn(pool: ThreadPoolExecutor, products: Products) -> float:
    _, operations, calls = products
    list(pool.map(lambda call: call(), calls))  # caches that an engine filled
    return _rate(pool, operations, calls) / 1e9


def _rate(pool: ThreadPoolExecutor, operations: float, calls: Sequence[Callable[[], Any]]) -> float:
    """Operations a second of all threads, until the last ended."""
    started = time.perf_counter()

    def repeat(call: Callable[[], Any]) -> int:
        times = 0
        while time.perf_counter() < started + TURN_S:
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
