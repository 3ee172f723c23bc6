"""Prometheus objects of the cache and of Redis."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from service.caching.redis_errors import KINDS
from service.telemetry.metrics import REGISTRY

_LOOKUPS = Counter(
    "landmoe_cache_lookups",
    "Tiles looked up by level and result. alias knows files by their bytes and parameters, which saves "
    "decoding; memory and redis hold embeddings, and redis is asked for what memory does not have. "
    "unavailable: Redis failed or is left alone; damaged: what it held could not be used",
    ["level", "result"],
    registry=REGISTRY,
)
# Made here, so that every series exists, with 0, from the start.
LOOKUPS = {
    (level, result): _LOOKUPS.labels(level, result)
    for level, results in {
        "alias": ("hit", "miss"),
        "memory": ("hit", "miss"),
        "redis": ("hit", "miss", "damaged", "unavailable"),
    }.items()
    for result in results
}
SHARED = Counter(
    "landmoe_shared_tiles",
    "Tiles answered by a computation that another request had under way",
    registry=REGISTRY,
)
CACHE_BYTES = Gauge(
    "landmoe_cache_bytes",
    "Bytes of results kept in the process",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
_REDIS_ERRORS = Counter("landmoe_redis_errors", "Failed Redis commands by kind", ["kind"], registry=REGISTRY)
REDIS_ERRORS = {kind: _REDIS_ERRORS.labels(kind) for kind in KINDS}
_REDIS_WRITES = Counter(
    "landmoe_redis_writes",
    "Entries to be written to Redis by what became of them; dropped: the queue was full or Redis left alone",
    ["result"],
    registry=REGISTRY,
)
REDIS_WRITES = {result: _REDIS_WRITES.labels(result) for result in ("ok", "failed", "dropped")}
_REDIS_DURATION = Histogram(
    "landmoe_redis_duration_seconds",
    "From a command to Redis' answer or failure: get, set (many at once) or trial (a lookup that tells "
    "whether Redis can be used)",
    ["command"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
    registry=REGISTRY,
)
REDIS_DURATION = {command: _REDIS_DURATION.labels(command) for command in ("get", "set", "trial")}
REDIS_BREAKER_OPEN = Gauge(
    "landmoe_redis_breaker_open",
    "1 while Redis is left alone because it kept failing, in any worker",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
REDIS_REFUSES_WRITES = Gauge(
    "landmoe_redis_refuses_writes",
    "1 while nothing is written because Redis has no room or may not write, in any worker",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
