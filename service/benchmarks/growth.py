"""How speed and memory grow: with engine threads, processes, clients, batches, waiting tiles, scene size."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from model.measurement import Figures, Measure, Of, Record, interleave, of
from service import sample
from service.batching import cpu
from service.benchmarks import contenders, processes, scene_load
from service.benchmarks.engine import rate, saturated
from service.benchmarks.load import Shot, for_seconds, shots
from service.benchmarks.processes import Server
from service.benchmarks.service import FILES, figures_of, load
from service.encoder_engine import make_engine
from service.settings import Settings

_UNCACHED = ("Cache-Control: no-cache",)
_CLIENTS_OF_PROCESSES = 64


class Plan(NamedTuple):
    """The values that each thing grows through."""

    processes: tuple[int, ...]
    clients: tuple[int, ...]
    batches: tuple[int, ...]
    waiting: tuple[int, ...]  # tiles that clients have under way at once
    scenes: tuple[int, ...]  # px, a side
    files: int


FULL = Plan(
    processes=(1, 2),
    clients=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    batches=(1, 2, 4, 8, 16, 32, 64),
    waiting=(1, 64, 256, 768),
    scenes=(1000, 2000, 4000, 8000),
    files=FILES,
)
QUICK = Plan(processes=(1,), clients=(1, 4), batches=(1, 4), waiting=(8,), scenes=(160,), files=8)


def run(
    settings: Settings, *, rounds: int, seconds: float, plan: Plan, stride: int, partial: Path | None = None
) -> dict[str, Any]:
    """Measures.

    Args:
        settings: of the service and of the engine.
        rounds: of all measurements.
        seconds: each measurement of a round takes; scenes and waiting tiles take what they need.
        plan: what to measure.
        stride: px from one window of a scene to the next.
        partial: see `interleave`.

    Returns:
        A record (measurement.py), all without cache. `engine_threads`: `tiles_per_s` of so many at once.
        `batch`: `p50_ms` and `tiles_per_s` of one batch after the other. `processes` and `clients` (of one
        process): `tiles_per_s`, `p50_ms`, `p99_ms`; `rss_mb` of all processes. `waiting` tiles and `scene`
        sides, each in a fresh process: `rss_mb` (the most), `rss_before_mb`; scenes have `windows_per_s`.

    Raises:
        LoadError: a server does not start, or answered otherwise than it should.
        BundleError, EngineError: the engine cannot be made.
    """
    # With its usual patience a slow machine would refuse some of many waiting tiles.
    settings = settings.model_copy(update={"cache_mb": 0.0, "request_timeout_s": 300.0})
    engine = make_engine(settings)
    requests = shots("/embed", [sample.make(seed) for seed in range(plan.files)], headers=_UNCACHED)
    measurements: dict[Of, Measure] = {}
    with ExitStack() as stack:
        for threads in sorted({1, *range(2, cpu.available() + 1), 2 * cpu.available()}):
            measurements[of(engine_threads=threads)] = _threads_of(settings, threads, seconds)
        embed = contenders.in_chunks(engine)
        for size in plan.batches:
            batch = contenders.batch(engine.bundle.config, size)
            measurements[of(batch=size)] = lambda batch=batch: rate(embed, batch, seconds / 2)  # type: ignore[misc]
        servers = {n: stack.enter_context(processes.landmoe(settings, workers=n)) for n in plan.processes}
        for count, server in servers.items():
            measurements[of(processes=count)] = _load_of(server, requests, _CLIENTS_OF_PROCESSES, seconds)
        for count in plan.clients:
            measurements[of(clients=count)] = _load_of(servers[plan.processes[0]], requests, count, seconds)
        for count in plan.waiting:
            measurements[of(waiting=count)] = _waiting_of(settings, requests, count)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="landmoe-bench-")))
        for side in plan.scenes:
            measurements[of(scene=side)] = _scene_of(settings, folder / f"{side}.tif", side, stride)
        asked = {
            "bundle": engine.bundle.name,
            "precision": engine.precision,
            "provider": engine.provider,
            "cpus": cpu.available(),
            "seconds": seconds,
            "plan": plan._asdict(),
            "stride": stride,
        }
        done = interleave(measurements, rounds, settings=asked, partial=partial)
    return Record("growth", asked, done).to_json()


def _threads_of(settings: Settings, threads: int, seconds: float) -> Measure:
    engine = make_engine(settings.model_copy(update={"engine_threads": threads}))
    return lambda: {"tiles_per_s": saturated(engine, seconds)}


def _load_of(server: Server, requests: list[Shot], connections: int, seconds: float) -> Measure:
    def measure() -> Figures:
        account = load(server.url, requests, connections, for_seconds(seconds))
        return figures_of(account) | {"rss_mb": server.rss_mb()}

    return measure


def _waiting_of(settings: Settings, requests: list[Shot], tiles: int) -> Measure:
    """Every client has one tile under way until each was answered once."""

    def measure() -> Figures:
        with processes.landmoe(settings) as server:
            # What is let in follows from what was measured: it has to have measured something.
            load(server.url, requests, 4, lambda account: account.sent >= min(16, len(requests)))
            before = server.rss_mb()
            with scene_load.PeakMemory(server) as peak:
                load(server.url, requests, tiles, lambda account: account.sent >= tiles)
            return {"rss_mb": peak.mb, "rss_before_mb": before}

    return measure


def _scene_of(settings: Settings, path: Path, side: int, stride: int) -> Measure:
    def measure() -> Figures:
        if not path.exists():
            scene_load.write(path, side)
        with processes.landmoe(settings) as server:
            return scene_load.embed(server, path, side, stride)

    return measure
