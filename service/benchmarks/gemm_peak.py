"""The machine's matrix rate: what an engine could give at most if it did nothing but its products.

Every thread multiplies matrices of its own, as the engine's workers do; the best shape of the best library
counts (matrix_products.py).

It runs in a process of its own, because a BLAS takes its number of threads from the environment it starts in.
The process stays, so that an engine and the products can be measured in turns of a tenth of a second: where a
machine's rate changes from one second to the next, only what ran side by side can be held against each other.
"""

from __future__ import annotations

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

from service.benchmarks import matrix_products
from service.benchmarks.matrix_products import Products

TURN_S = 0.1  # that products are repeated for, and an engine beside them
_ROUNDS = 8  # of turns of every shape, whose median decides which is the best
_ALL = "all"
_TIMEOUT_S = 120  # of an answer; all shapes take about ten


class MatrixRateError(RuntimeError):
    """The measuring process failed; says why."""


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
        """GFLOP/s of all threads together, by kind: `fp32`, and where they can be had `bf16` and `torch`.

        Of the shape that is fastest in the median of some turns, which `turn` keeps to from then on.

        Raises:
            MatrixRateError: the measuring process failed.
        """
        rates: dict[str, float] = self._ask(_ALL)
        return rates

    def turn(self, numbers: str) -> float:
        """GFLOP/s of one turn, a tenth of a second; of `fp32` where others cannot be had.

        Raises:
            MatrixRateError: the measuring process failed.
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
        raise MatrixRateError(f"the matrix rate could not be measured: {reason}")


def _main(threads: int) -> None:
    products = matrix_products.every(threads)
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
    """The fastest products of each kind, and their GFLOP/s."""
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
        while not times or time.perf_counter() < started + TURN_S:  # once, however late the thread came
            call()
            times += 1
        return times

    return operations * sum(pool.map(repeat, calls)) / (time.perf_counter() - started)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
