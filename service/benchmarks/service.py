"""How much of what the engine gives reaches the clients, and what other ways of serving it give.

Closed loops against servers of our own: landmoe, FastAPI around ONNX Runtime, LitServe, and for cached
answers a FastAPI route that does nothing. Rounds alternate between them and the engine alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from model.measurement import Figures, Measure, Of, Record, Round, interleave, of
from service import sample
from service.batching import cpu
from service.benchmarks import contenders, processes
from service.benchmarks.engine import saturated
from service.benchmarks.load import Account, LoadError, Shot, closed_loop, for_seconds, shots
from service.benchmarks.processes import Server
from service.encoder_engine import make_engine
from service.engine import Engine
from service.settings import Settings

CONNECTIONS = (1, 8, 64)
MANY_TILES = 32
ENGINE = of(server="engine alone")
LANDMOE, PLAIN, LITSERVE, EMPTY = "landmoe", "plain FastAPI", "LitServe", "empty route"
FILES = 256  # so that equal tiles are rare among those under way, and never computed once for two
# More at once than it lets in would be refused, rightly, and measure nothing.
_MOST_TILES_AT_ONCE = 512
REQUESTS_BEFORE_WEIGHING = 1000
_UNCACHED = ("Cache-Control: no-cache",)
_LONE_RUNS = 30
_NO_LITSERVE = "litserve is not installed; pip install 'landmoe[bench]'"

Cache = str  # "bypassed", "hit", or "none" where a server has none


def run(
    settings: Settings,
    *,
    rounds: int,
    seconds: float,
    connections: Sequence[int] = CONNECTIONS,
    files: int = FILES,
    weigh_after: int = REQUESTS_BEFORE_WEIGHING,
    partial: Path | None = None,
) -> dict[str, Any]:
    """Measures.

    Args:
        settings: of the service; the engine alone is made from the same.
        rounds: of all measurements.
        seconds: each measurement of a round takes.
        connections: closed loops at once, one row each.
        files: different tiles; with `connections`, it bounds how many tiles a request can have.
        weigh_after: requests, after which a serving process's memory is taken.
        partial: see `interleave`.

    Returns:
        A record (measurement.py). Rows of a `server`, `connections`, `tiles` (a request) and `cache` have
        `requests_per_s`, `tiles_per_s`, `p50_ms`, `p99_ms`, `client_cpu_share`, and of the same round
        `share_of_engine`, `over_engine_ms` (p50, at one connection) and `times_plain` (against plain
        FastAPI), or for hits `share_of_empty`. The row `engine alone` has `tiles_per_s`, and `p50_ms` of a
        lone tile. Rows of a `server` and `after_requests` have `rss_mb` and `processes`.

    Raises:
        LoadError: a server does not start, or answered otherwise than it should.
        BundleError, EngineError: the engine cannot be made.
    """
    engine = make_engine(settings)
    encoder = engine.bundle.encoder_path("fp32")
    contents = [sample.make(seed) for seed in range(files)]
    many = min(MANY_TILES, files)
    absent = {}
    with ExitStack() as stack:
        ours = stack.enter_context(processes.landmoe(settings))
        servers = {
            LANDMOE: ours,
            PLAIN: stack.enter_context(processes.plain(encoder)),
            EMPTY: stack.enter_context(processes.empty()),
        }
        if importlib.util.find_spec("litserve") is None:
            absent[LITSERVE] = _NO_LITSERVE
        else:
            servers[LITSERVE] = stack.enter_context(processes.litserve(encoder, cpu.available()))
        measurements: dict[Of, Measure] = {ENGINE: _alone(servers, None, lambda: _engine(engine, seconds))}

        def add(name: str, cache: Cache, tiles: int, requests: list[Shot], *, apart: bool = False) -> None:
            for count in connections:
                if count * tiles <= max(_MOST_TILES_AT_ONCE, tiles):
                    what = of(server=name, connections=count, tiles=tiles, cache=cache)
                    measure = _load_of(servers[name], requests, count, seconds, apart=apart)
                    measurements[what] = _alone(servers, name, measure)

        raw, raw_uncached = shots("/embed", contents), shots("/embed", contents, headers=_UNCACHED)
        forms, forms_uncached = (
            shots("/embed", contents, tiles=many, headers=headers) for headers in ((), _UNCACHED)
        )
        add(LANDMOE, "bypassed", 1, raw_uncached)
        add(PLAIN, "none", 1, raw)
        if LITSERVE in servers:
            add(LITSERVE, "none", 1, shots("/embed", contents, form=True))
        add(LANDMOE, "bypassed", many, forms_uncached)
        add(PLAIN, "none", many, forms)
        add(LANDMOE, "hit", 1, raw, apart=True)
        add(EMPTY, "none", 1, raw, apart=True)
        add(LANDMOE, "hit", many, forms)
        load(ours.url, raw, 8, lambda account: account.sent >= len(raw))  # fills the cache
        asked = {
            "bundle": engine.bundle.name,
            "precision": engine.precision,
            "provider": engine.provider,
            "cpus": cpu.available(),
            "workers": settings.workers,
            "seconds": seconds,
            "connections": list(connections),
            "body_bytes": len(contents[0]),
        }
        done = interleave(measurements, rounds, settings=asked, partial=partial)
        memory = {
            of(server=name, after_requests="its load"): _weigh(servers[name])
            for name in (PLAIN, LITSERVE)
            if name in servers
        }
    with processes.landmoe(settings, cache_mb=0) as server:
        load(server.url, raw_uncached, 8, lambda account: account.sent >= weigh_after)
        memory[of(server=LANDMOE, after_requests=weigh_after)] = _weigh(server)
    for each in done:
        _compare(each)
    return Record("service", asked, [*done[:-1], done[-1] | memory], absent).to_json()


def load(url: str, requests: Sequence[Shot], connections: int, until: Callable[[Account], bool]) -> Account:
    """A closed loop in which every request has to succeed.

    Raises:
        LoadError: one did not.
    """
    account = asyncio.run(closed_loop(url, requests, connections=connections, until=until))
    if not account.answered or account.answered != account.sent:
        raise LoadError(f"{url} did not answer every request: {account.summary()}")
    return account


def figures_of(account: Account) -> Figures:
    """What a row of a load holds."""
    summary = account.summary()
    names = ("requests_per_s", "tiles_per_s", "p50_ms", "p99_ms", "client_cpu_share")
    return {name: float(value) for name in names if isinstance(value := summary[name], int | float)}


def _load_of(
    server: Server, requests: Sequence[Shot], connections: int, seconds: float, *, apart: bool
) -> Measure:
    def measure() -> Figures:
        with processes.apart(server) if apart else nullcontext():
            return figures_of(load(server.url, requests, connections, for_seconds(seconds)))

    return measure


def _alone(servers: Mapping[str, Server], name: str | None, measure: Measure) -> Measure:
    """While one is measured, the others stand still: LitServe takes a quarter of a CPU with nothing to do."""

    def measure_alone() -> Figures:
        with processes.still(server for other, server in servers.items() if other != name):
            return measure()

    return measure_alone


def _engine(engine: Engine, seconds: float) -> Figures:
    """Saturated, and the median of a batch of one that has all threads."""
    rate = saturated(engine, seconds)
    dn, metadata = contenders.batch(engine.bundle.config, 1)
    times = []
    for _ in range(_LONE_RUNS):
        start = time.perf_counter()
        engine.run(dn, metadata, ("mean",), alone=True)
        times.append(time.perf_counter() - start)
    return {"tiles_per_s": rate, "p50_ms": statistics.median(times) * 1000}


def _weigh(server: Server) -> Figures:
    return {"rss_mb": server.rss_mb(), "processes": len(server.tree())}


def _compare(each: Round) -> None:
    """Adds a round's shares and ratios: of answers that were computed, and of cached ones."""
    alone = each[ENGINE]
    for what, figures in each.items():
        row = dict(what)
        if "connections" not in row or row["server"] == EMPTY:
            continue
        same = {"connections": row["connections"], "tiles": row["tiles"], "cache": "none"}
        plain, empty = each.get(of(server=PLAIN, **same)), each.get(of(server=EMPTY, **same))
        if row["cache"] == "hit":
            if empty is not None:
                figures["share_of_empty"] = figures["requests_per_s"] / empty["requests_per_s"]
            continue
        figures["share_of_engine"] = figures["tiles_per_s"] / alone["tiles_per_s"]
        if row["connections"] == row["tiles"] == 1:
            figures["over_engine_ms"] = figures["p50_ms"] - alone["p50_ms"]
        if plain is not None:
            figures["times_plain"] = figures["tiles_per_s"] / plain["tiles_per_s"]
