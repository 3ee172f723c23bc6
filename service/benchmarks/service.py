"""How much of what the engine gives reaches the clients: closed-loop load against a service of its own.

Rounds alternate between the engine alone and the service, so that what else the machine does falls on both;
the shares are of the same round, the figures are medians of the rounds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog

from service import sample
from service.batching import cpu
from service.benchmarks.load import Account, LoadError, Shot, closed_loop, for_seconds, shots
from service.engine import Engine, make_engine
from service.settings import PREFIX, Settings

log = structlog.get_logger()

CONNECTIONS = (1, 8, 64)
_FILES = 256  # so that equal tiles are rare among those under way, and never computed once for two
_START_TIMEOUT_S = 60
_UNCACHED = ("Cache-Control: no-cache",)

Json = dict[str, Any]


def run(
    settings: Settings,
    *,
    rounds: int,
    seconds: float,
    connections: Sequence[int] = CONNECTIONS,
    tiles: int = 1,
) -> Json:
    """Measures.

    Args:
        settings: of the service; the engine alone is made from the same.
        rounds: of all measurements.
        seconds: each measurement of a round takes.
        connections: closed loops at once, one row each.
        tiles: in a request.

    Returns:
        JSON-ready: `engine` (tiles/s and p50 at batch 1), and in `rows` for each number of connections, with
        and without cache: requests/s, tiles/s, p50, p99, share of the engine alone, the client's CPU share.

    Raises:
        LoadError: the service does not start, or answered otherwise than it should.
        BundleError, EngineError: the engine cannot be made.
    """
    engine = make_engine(settings)
    files = [sample.make(seed) for seed in range(_FILES)]
    loads = {
        False: shots("/embed", files, tiles=tiles, headers=_UNCACHED),
        True: shots("/embed", files, tiles=tiles),
    }
    alone: list[Json] = []
    rows: dict[tuple[int, bool], list[Json]] = {(n, c): [] for c in (False, True) for n in connections}
    with _service(settings) as url:
        # Warms up, and fills the cache.
        _load(url, loads[True], 8, lambda account: account.sent >= len(loads[True]))
        for number in range(rounds):
            alone.append({"tiles_per_s": _saturated(engine, seconds), "p50_ms": _lone_ms(engine)})
            for (count, cached), row in rows.items():
                account = _load(url, loads[cached], count, for_seconds(seconds))
                summary = account.summary()
                summary["share_of_engine"] = account.tiles_per_s / alone[-1]["tiles_per_s"]
                row.append(summary)
            log.info("round done", round=number + 1, of=rounds)
    return {
        "cpus": cpu.available(),
        "tiles_per_request": tiles,
        "rounds": rounds,
        "engine": _medians(alone),
        "rows": [{"connections": n, "cached": c, **_medians(row)} for (n, c), row in rows.items()],
    }


def _load(url: str, requests: Sequence[Shot], connections: int, until: Callable[[Account], bool]) -> Account:
    account = asyncio.run(closed_loop(url, requests, connections=connections, until=until))
    if not account.answered or account.answered != account.sent:
        raise LoadError(f"the service did not answer every request: {account.summary()}")
    return account


def _saturated(engine: Engine, seconds: float) -> float:
    """Tiles/s of as many threads as the engine takes, each with batches of the size it likes best."""
    dn, metadata = _batch(engine, engine.batch_size)
    end = time.perf_counter() + seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < end:
            engine.run(dn, metadata, ("mean",))
            count += len(dn)
        return count

    start = time.perf_counter()
    with ThreadPoolExecutor(engine.concurrency) as threads:
        counts = [future.result() for future in [threads.submit(work) for _ in range(engine.concurrency)]]
    return sum(counts) / (time.perf_counter() - start)


def _lone_ms(engine: Engine, runs: int = 30) -> float:
    """Median milliseconds of a batch of one that has all threads."""
    dn, metadata = _batch(engine, 1)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        engine.run(dn, metadata, ("mean",), alone=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def _batch(engine: Engine, size: int) -> tuple[np.ndarray, np.ndarray]:
    config = engine.bundle.config
    rng = np.random.default_rng(0)
    shape = (size, config.in_channels, config.image_size, config.image_size)
    dn = rng.integers(7_000, 20_000, shape, dtype=np.uint16)
    return dn, rng.uniform(-1, 1, (size, 4, 2)).astype(np.float32)


def _medians(rows: Sequence[Json]) -> Json:
    """The median of every figure, and the spread of the tiles/s, of several rounds."""
    figures = {
        name: round(statistics.median(row[name] for row in rows), 3)
        for name, value in rows[0].items()
        if isinstance(value, int | float)
    }
    rates = [row["tiles_per_s"] for row in rows]
    return figures | {"tiles_per_s_range": [round(min(rates), 2), round(max(rates), 2)]}


@contextmanager
def _service(settings: Settings) -> Iterator[str]:
    """A service in a process of its own on a free port; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    given = settings.model_dump(exclude_defaults=True, mode="json")
    environment = {PREFIX + name.upper(): str(value) for name, value in given.items()}
    # A line for each request would be written to somebody who does not read it.
    environment[PREFIX + "LOG_LEVEL"] = "warning"
    process = subprocess.Popen(  # noqa: S603  # ourselves
        [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", str(port)],
        env={**os.environ, **environment},
    )
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310  # our own http address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise LoadError(f"the service at {url} did not become ready; exit status {process.poll()}")
