"""How this process feels: lag of its event loop, memory, CPU, garbage collection; measured every moment."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import psutil
from prometheus_client import Gauge, Histogram

from service.telemetry import metrics

_LAG_EVERY_S = 0.25
_USAGE_EVERY_S = 2.0

LOOP_LAG = Histogram(
    "landmoe_event_loop_lag_seconds",
    "How much later than asked the event loop wakes up; more than some ms means that something blocks it",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=metrics.REGISTRY,
)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    # liveall: a time series for each worker that lives, told apart by the label `pid`.
    return Gauge(
        f"landmoe_worker_{name}", text, labels, registry=metrics.REGISTRY, multiprocess_mode="liveall"
    )


MEMORY = _gauge("resident_memory_bytes", "Resident memory of a worker")
CPU = _gauge("cpu_seconds", "CPU time that a worker has used; only grows")
THREADS = _gauge("threads", "Threads of a worker")
FILES = _gauge("open_files", "Open file descriptors of a worker")
GC_RUNS = _gauge(
    "gc_collections", "Garbage collections of a worker by generation; only grows", ("generation",)
)
GC_SECONDS = _gauge("gc_seconds", "Time that a worker stood still for garbage collection; only grows")


class VitalSigns:
    """Measures this process until stopped.

    Args:
        ready: tells whether requests are taken.
    """

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._process = psutil.Process()
        self._tasks: list[asyncio.Task[None]] = []
        self._gc_start = self._gc_s = 0.0

    def start(self) -> None:
        """Begins; to be called in the event loop that is watched."""
        gc.callbacks.append(self._on_gc)
        self._measure()
        self._tasks = [asyncio.create_task(self._watch_loop()), asyncio.create_task(self._watch_usage())]

    def stop(self) -> None:
        """Ends."""
        for task in self._tasks:
            task.cancel()
        if self._on_gc in gc.callbacks:
            gc.callbacks.remove(self._on_gc)

    async def _watch_loop(self) -> None:
        while True:
            asked = time.perf_counter() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            LOOP_LAG.observe(max(0.0, time.perf_counter() - asked))

    async def _watch_usage(self) -> None:
        while True:
            await asyncio.sleep(_USAGE_EVERY_S)
            self._measure()

    def _measure(self) -> None:
        metrics.READY.set(self._ready())
        with self._process.oneshot():
            MEMORY.set(self._process.memory_info().rss)
            used = self._process.cpu_times()
            CPU.set(used.user + used.system)
            THREADS.set(self._process.num_threads())
        FILES.set(self._process.num_fds())
        for generation, stats in enumerate(gc.get_stats()):
            GC_RUNS.labels(str(generation)).set(stats["collections"])
        GC_SECONDS.set(self._gc_s)

    def _on_gc(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_start = time.perf_counter()
        else:
            self._gc_s += time.perf_counter() - self._gc_start
