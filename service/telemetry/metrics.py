"""Every Prometheus object of the service: one prefix, explicit buckets, labels with few values only."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from model.bundle import Bundle
from service.telemetry.worker_files import DEATHS, MULTIPROCESS_DIR, reading

REGISTRY = CollectorRegistry()
if MULTIPROCESS_DIR not in os.environ:
    ProcessCollector(namespace="landmoe", registry=REGISTRY)
    PlatformCollector(registry=REGISTRY)

# A cache hit takes about 1 ms, a tile on an idle CPU 3 to 10, a full queue seconds.
_REQUEST_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_STAGE_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MEDIA_TYPE = CONTENT_TYPE_LATEST

_TILES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

REQUESTS = Counter(
    "landmoe_requests",
    "Requests by route and outcome: ok, disconnected, or the type of the problem",
    ["route", "outcome"],
    registry=REGISTRY,
)
REQUEST_DURATION = Histogram(
    "landmoe_request_duration_seconds",
    "From the request's head to the last byte of the answer",
    ["route"],
    buckets=_REQUEST_S,
    registry=REGISTRY,
)
REQUESTS_IN_FLIGHT = Gauge(
    "landmoe_requests_in_flight",
    "Requests being answered",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
STAGE_DURATION = Histogram(
    "landmoe_stage_duration_seconds",
    "Stages of a request: fetch, decode, cache, queue, inference, format",
    ["stage"],
    buckets=_STAGE_S,
    registry=REGISTRY,
)
TILES = Counter(
    "landmoe_tiles",
    "Tiles by outcome: ok, or the type of the problem",
    ["outcome"],
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "landmoe_batch_size_tiles", "Tiles in a batch of the engine", buckets=_TILES, registry=REGISTRY
)
QUEUE_DEPTH = Gauge(
    "landmoe_queue_depth_tiles",
    "Tiles being prepared for the engine or waiting for it",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
QUEUE_CAPACITY = Gauge(
    "landmoe_queue_capacity_tiles",
    "Tiles that may be prepared or wait now: the queue size, or fewer where the engine is too slow for it",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
QUEUE_SIZE = Gauge(
    "landmoe_queue_size_tiles",
    "Tiles that may be prepared or wait at a time, of all workers",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
DROPPED = Counter(
    "landmoe_dropped_tiles",
    "Tiles dropped from the queue because nobody waits for them any more",
    registry=REGISTRY,
)
ENGINE_FAILURES = Counter(
    "landmoe_engine_failures",
    "Batches that the engine failed on, and restarts of it that failed",
    registry=REGISTRY,
)
ENGINE_RESTARTS = Counter(
    "landmoe_engine_restarts",
    "Engine workers restarted after they failed, died or hung",
    registry=REGISTRY,
)
WORKER_DEATHS = Counter(*DEATHS, registry=REGISTRY)
ENGINE_WORKERS = Gauge(
    "landmoe_engine_workers",
    "Engine workers that work",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
# A gauge, since info metrics do not work with several processes.
MODEL_INFO = Gauge(
    "landmoe_model_info",
    "Always 1; the labels say which model is served",
    ["name", "version", "digest", "precision", "provider", "trained"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
READY = Gauge("landmoe_ready", "1 while requests are taken", registry=REGISTRY, multiprocess_mode="livemin")

_FETCHES = Counter(
    "landmoe_fetches",
    "Files that requests linked to: ok, refused (the URL, or too many bytes), failed, cancelled (with the "
    "request: its client went, its time was over, or another of its files was refused)",
    ["outcome"],
    registry=REGISTRY,
)

FETCHED = {outcome: _FETCHES.labels(outcome) for outcome in ("ok", "refused", "failed", "cancelled")}

STAGES = {
    stage: STAGE_DURATION.labels(stage)
    for stage in ("fetch", "decode", "cache", "queue", "inference", "format")
}


def set_model(bundle: Bundle, precision: str, provider: str) -> None:
    """Names the served model; another one named before is forgotten."""
    if MULTIPROCESS_DIR not in os.environ:  # a worker process names one model in its life
        MODEL_INFO.clear()
    MODEL_INFO.labels(
        bundle.name, bundle.version, bundle.digest, precision, provider, str(bundle.trained).lower()
    ).set(1)


def exposition() -> bytes:
    """All metrics in the text format; of all workers where there are several."""
    if MULTIPROCESS_DIR not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    with reading():
        _Workers(registry)  # type: ignore[no-untyped-call]  # untyped in prometheus_client
        return generate_latest(registry)


class _Workers(MultiProcessCollector):
    """Metrics of all workers, of one that has just begun as well.

    A file is empty from its making to its first length, and for ever if its worker dies between them.
    prometheus_client fails on such a file.
    """

    def collect(self) -> list[Metric]:
        files = [str(file) for file in Path(os.environ[MULTIPROCESS_DIR]).glob("*.db") if _size(file)]
        merged: list[Metric] = list(self.merge(files))  # type: ignore[no-untyped-call]  # untyped there
        return merged


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # of a worker that has just ended
        return 0
