"""How fast tiles are embedded: by batch size, against the machine's matrix rate and the unfused network."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from model.flops import flops_per_tile
from model.measurement import Figures, Measure, Of, Record, Round, interleave, of
from service.batching import cpu
from service.benchmarks import contenders, gemm_peak, matrix_products
from service.benchmarks.contenders import Embed
from service.engine import Engine
from service.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SATURATED = 0  # stands for: as many batches at once as the engine takes, of the size it likes best
GEMM = of(contender="matrix rate")
BESIDE = 32  # the batch that is measured in turns with the matrix rate
_LEAST_TURNS = 5
_PAUSE_S = 0.05  # in which threads of the last contender cease to spin


def run(
    settings: Settings,
    *,
    rounds: int,
    seconds: float,
    batches: Sequence[int] = BATCHES,
    with_baselines: bool = True,
    partial: Path | None = None,
) -> dict[str, Any]:
    """Measures.

    Args:
        settings: of the engine.
        rounds: of all measurements.
        seconds: each measurement of a round takes, or one batch where that takes longer.
        batches: tiles in a batch, one row each.
        with_baselines: whether the unfused networks are measured too.
        partial: see `interleave`.

    Returns:
        A record (measurement.py). Rows of a `contender` and `batch` have `tiles_per_s`, `p50_ms` (of a
        batch), `times_loop` (against the published loop in the same round), `times_exact` (fast) and, on a
        CPU, `share_of_gemm`: of what the matrix rate allows, which for batches of 32 is the median over turns
        of a tenth of a second, each of the engine's rate and of the products' right before it. Those of the
        networks in PyTorch have `share_of_torch` too, of what its own products allow. Batch 0 is the engine
        saturated. The row of the matrix rate has `fp32_gflops`, and where they can be measured `bf16_gflops`
        and `torch_gflops`.

    Raises:
        BundleError, EngineError: the engine cannot be made.
    """
    embeds, engines, absent = contenders.ours(settings)
    config = engines["exact"].bundle.config
    threads = cpu.available()
    if with_baselines:
        others, missing = contenders.baselines(config, threads)
        embeds |= others
        absent |= missing
    mflop = round(flops_per_tile(config) / 1e6, 1)
    asked = {
        "bundle": engines["exact"].bundle.name,
        "precisions": {name: engine.precision for name, engine in engines.items()},
        "runtimes": {name: engine.runtime for name, engine in engines.items()},
        "provider": engines["exact"].provider,
        "threads": threads,
        "seconds": seconds,
        "batches": list(batches),
        "mflop_per_tile": mflop,
    }
    precisions = {name: engine.precision for name, engine in engines.items()}
    with contextlib.ExitStack() as stack:
        measurements: dict[Of, Measure] = {}
        matrix = None
        if engines["exact"].provider == "cpu":
            matrix = stack.enter_context(gemm_peak.MatrixRate(threads))
            absent |= matrix_products.missing()
            measurements[GEMM] = _all_of(matrix)
        for size in batches:
            for name, embed in embeds.items():
                tiles = contenders.batch(config, size)
                measure = _rate_of(embed, tiles, seconds)
                if matrix and size == BESIDE:
                    products = {
                        figure: functools.partial(matrix.turn, kind)
                        for figure, kind in _limits(name, precisions).items()
                    }
                    measure = functools.partial(beside, embed, tiles, seconds, products, mflop)
                measurements[of(contender=name, batch=size)] = measure
        for name, engine in engines.items():
            measurements[of(contender=name, batch=SATURATED)] = _saturation_of(engine, seconds)
        done = interleave(measurements, rounds, settings=asked, partial=partial)
    for each in done:
        if GEMM in each:
            _add_shares(each, mflop, precisions)
        _add_ratios(each)
    return Record("engine", asked, done, absent).to_json()


def beside(
    embed: Embed,
    batch: contenders.Batch,
    seconds: float,
    products: Mapping[str, Callable[[], float]],
    mflop: float,
) -> Figures:
    """A batch's rate as `rate` has it, and its shares of matrix rates, measured in turns with them.

    Args:
        embed: what is measured.
        batch: of tiles, embedded over and over, at least for a tenth of a second a turn.
        seconds: of all its turns together.
        products: by the name of a share, GFLOP/s of a turn of the products that it is of.
        mflop: of a tile.
    """
    turns: list[Figures] = []
    shares: dict[str, list[float]] = {name: [] for name in products}
    while len(turns) < _LEAST_TURNS or len(turns) * gemm_peak.TURN_S < seconds:
        time.sleep(_PAUSE_S)
        possible = {name: turn() for name, turn in products.items()}
        turns.append(rate(embed, batch, gemm_peak.TURN_S))
        for name, gflops in possible.items():
            shares[name].append(turns[-1]["tiles_per_s"] * mflop / 1e3 / gflops)
    figures = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return figures | {name: statistics.median(found) for name, found in shares.items()}


def saturated(engine: Engine, seconds: float) -> float:
    """Tiles/s of as many threads as the engine takes, each with batches of the size it likes best."""
    dn, metadata = contenders.batch(engine.bundle.config, engine.batch_size)
    start = time.perf_counter()
    end = start + seconds

    def work(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            engine.run(dn, metadata, ("mean",))
            count += len(dn)
        return count

    with ThreadPoolExecutor(engine.concurrency) as threads:
        count = sum(threads.map(work, range(engine.concurrency)))
    return count / (time.perf_counter() - start)


def rate(embed: Embed, batch: contenders.Batch, seconds: float) -> Figures:
    """Tiles/s and median milliseconds of a batch that is embedded over and over."""
    time.sleep(_PAUSE_S)
    embed(*batch)  # allocations, and caches that the last contender filled
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        embed(*batch)
        times.append(time.perf_counter() - before)
    return {
        "tiles_per_s": len(batch[0]) * len(times) / (time.perf_counter() - start),
        "p50_ms": statistics.median(times) * 1000,
    }


def _rate_of(embed: Embed, batch: contenders.Batch, seconds: float) -> Measure:
    return lambda: rate(embed, batch, seconds)


def _saturation_of(engine: Engine, seconds: float) -> Measure:
    return lambda: {"tiles_per_s": saturated(engine, seconds)}


def _all_of(matrix: gemm_peak.MatrixRate) -> Measure:
    return lambda: {f"{numbers}_gflops": rate for numbers, rate in matrix.all().items()}


def _add_shares(each: Round, mflop: float, precisions: dict[str, str]) -> None:
    peaks = each[GEMM]
    for what, figures in each.items():
        if what != GEMM and "share_of_gemm" not in figures:
            for figure, kind in _limits(str(dict(what)["contender"]), precisions).items():
                peak = peaks.get(f"{kind}_gflops", peaks["fp32_gflops"])
                figures[figure] = figures["tiles_per_s"] * mflop / 1e3 / peak


def _limits(contender: str, precisions: dict[str, str]) -> dict[str, str]:
    """The shares that a contender has, and of which products they are.

    Every baseline is fp32; numbers whose rate is not known are held against fp32 as well.
    """
    limits = {"share_of_gemm": precisions.get(contender, "fp32")}
    if contender in (contenders.LOOP, contenders.DENSE):
        limits["share_of_torch"] = "torch"
    return limits


def _add_ratios(each: Round) -> None:
    for what, figures in each.items():
        if what == GEMM:
            continue
        name, batch = dict(what).values()
        for figure, other in (("times_loop", contenders.LOOP), ("times_exact", "exact")):
            against = each.get(of(contender=other, batch=batch))
            if against is not None and (figure == "times_loop" or name in ("fast", contenders.EXACT_ONNX)):
                figures[figure] = figures["tiles_per_s"] / against["tiles_per_s"]
