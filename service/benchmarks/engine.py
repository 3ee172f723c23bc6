"""How fast tiles are embedded: by batch size, against the machine's matrix rate and the unfused network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from model.flops import flops_per_tile
from model.measurement import Figures, Measure, Of, Record, Round, interleave, of
from service.batching import cpu
from service.benchmarks import contenders, gemm_peak
from service.benchmarks.contenders import Embed
from service.engine import Engine
from service.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SATURATED = 0  # stands for: as many batches at once as the engine takes, of the size it likes best
GEMM = of(contender="matrix rate")
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
        CPU, `share_of_gemm`: of what the matrix rate allows. Batch 0 is the engine saturated. The row of the
        matrix rate has `fp32_gflops`, and `bf16_gflops` where that can be measured.

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
    measurements: dict[Of, Measure] = {}
    if engines["exact"].provider == "cpu":
        measurements[GEMM] = lambda: _gemm(threads)
    for size in batches:
        for name, embed in embeds.items():
            measurements[of(contender=name, batch=size)] = _rate_of(
                embed, contenders.batch(config, size), seconds
            )
    for name, engine in engines.items():
        measurements[of(contender=name, batch=SATURATED)] = _saturation_of(engine, seconds)
    asked = {
        "bundle": engines["exact"].bundle.name,
        "precisions": {name: engine.precision for name, engine in engines.items()},
        "runtimes": {name: engine.runtime for name, engine in engines.items()},
        "provider": engines["exact"].provider,
        "threads": threads,
        "seconds": seconds,
        "batches": list(batches),
        "mflop_per_tile": round(flops_per_tile(config) / 1e6, 1),
    }
    done = interleave(measurements, rounds, settings=asked, partial=partial)
    for each in done:
        if GEMM in each:
            _add_shares(each, flops_per_tile(config), {name: e.precision for name, e in engines.items()})
        _add_ratios(each)
    return Record("engine", asked, done, absent).to_json()


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


def _gemm(threads: int) -> Figures:
    return {f"{numbers}_gflops": rate for numbers, rate in gemm_peak.measure(threads).items()}


def _add_shares(each: Round, flops: int, precisions: dict[str, str]) -> None:
    peaks = each[GEMM]
    for what, figures in each.items():
        if what != GEMM:
            # Every baseline is fp32; numbers whose rate is not known are held against fp32 as well.
            numbers = precisions.get(str(dict(what)["contender"]), "fp32")
            peak = peaks.get(f"{numbers}_gflops", peaks["fp32_gflops"])
            figures["share_of_gemm"] = figures["tiles_per_s"] * flops / (peak * 1e9)


def _add_ratios(each: Round) -> None:
    for what, figures in each.items():
        if what == GEMM:
            continue
        name, batch = dict(what).values()
        for figure, other in (("times_loop", contenders.LOOP), ("times_exact", "exact")):
            against = each.get(of(contender=other, batch=batch))
            if against is not None and (figure == "times_loop" or name in ("fast", contenders.EXACT_ONNX)):
                figures[figure] = figures["tiles_per_s"] / against["tiles_per_s"]
