"""The second level of the cache: Redis, shared by all workers, and never in anyone's way.

A lookup is bounded in time, a write is never waited for, and no failure leaves this file: it is counted, and
the answer is "not known". While the breaker is open no request is held up; a task of its own tries again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import InvalidResponse

from service.caching.breaker import Breaker
from service.caching.cache_metrics import (
    REDIS_BREAKER_OPEN,
    REDIS_DURATION,
    REDIS_ERRORS,
    REDIS_REFUSES_WRITES,
    REDIS_WRITES,
)
from service.caching.redis_errors import REFUSES_WRITES, kind_of
from service.caching.redis_pool import make_pool

log = structlog.get_logger()

State = Literal["ok", "unavailable", "refuses-writes"]
_T = TypeVar("_T")

# The end of the start holds the event loop for a moment, in which a lookup's time would run out.
_SETTLE_S = 0.3
_FAILURES = 5  # in a row, before Redis is left alone: one may be the network's hiccup
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_KEYS_PER_COMMAND = 64  # results of all tokens are then 4 MB: a few milliseconds of a shared server
_BACKGROUND_S = 1.0  # for what nobody waits for: trials, and writes as a whole
# A lookup of what is not there. Who refuses lookups (a cluster, a user without the right) answers PING.
_TRIAL = (b"landmoe:trial",)
_TRIAL_TTL_MS = 1000
_CLOSE_S = 1.0  # for writes still queued when the service stops


class RedisStore:
    """Keys and values in a Redis server that may be slow, full, restarting or not there.

    Args:
        url: redis://, rediss:// or unix://, checked by `redis_url.check`.
        ttl_s: how long an entry lives.
        connect_timeout_s: for a connection.
        timeout_s: for an answer.
        max_connections: at most; further lookups wait for one, no longer than for an answer.
        max_queued_bytes: of writes; more are dropped.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: int,
        connect_timeout_s: float,
        timeout_s: float,
        max_connections: int,
        max_queued_bytes: int,
    ) -> None:
        pool = make_pool(
            url, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s, max_connections=max_connections
        )
        self._redis = Redis.from_pool(pool)
        self._ttl_ms = 1000 * ttl_s
        # A server that sends a byte now and then would outwait the socket's own timeout.
        self._patience_s = connect_timeout_s + timeout_s
        self._breaker = Breaker(
            failures=_FAILURES, first_wait_s=_FIRST_WAIT_S, longest_wait_s=_LONGEST_WAIT_S
        )
        self._write_breaker = Breaker(failures=1, first_wait_s=1.0, longest_wait_s=30.0)
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()
        self._opened = asyncio.Event()
        self._refused = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._calls: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def start(self) -> None:
        """Begins to write and to watch over the server; does not wait for it."""
        self._tasks = [
            asyncio.create_task(self._write(), name="redis-write"),
            asyncio.create_task(self._watch(), name="redis-watch"),
            asyncio.create_task(self._watch_writes(), name="redis-watch-writes"),
        ]

    @property
    def state(self) -> State:
        """How the server does, as far as is known."""
        if self._breaker.is_open:
            return "unavailable"
        return "refuses-writes" if self._write_breaker.is_open else "ok"

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """The values of keys, None for each that is not there; None at all if Redis has not answered.

        A key whose value is of another type counts as not there.
        """
        found: list[bytes | None] = []
        for start in range(0, len(keys), _KEYS_PER_COMMAND):
            if self._breaker.is_open:
                return None
            # A task of its own: a client that goes away must not break off an exchange with Redis and so
            # cost it the connection.
            call = asyncio.create_task(self._call("get", self._mget(keys[start : start + _KEYS_PER_COMMAND])))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            some = await asyncio.shield(call)
            if some is None:
                return None
            found += (value if isinstance(value, bytes) else None for value in some)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Queues values to be written; those that find no room are dropped and counted. Returns at once."""
        for key, value in entries.items():
            size = len(key) + len(value)
            if self._queued_bytes + size > self._max_queued_bytes:
                REDIS_WRITES["dropped"].inc()
                continue
            self._queue.append((key, value))
            self._queued_bytes += size
        self._queued.set()

    async def close(self) -> None:
        """Writes what is queued, if that is quick, and lets go of the connections."""
        self._closing = True
        self._queued.set()
        if self._tasks:
            writer, *watchers = self._tasks
            for watcher in watchers:
                watcher.cancel()
            await asyncio.wait([writer], timeout=_CLOSE_S)
            writer.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Exception):  # a connection that cannot be closed in order is gone all the same
            await self._redis.aclose()
        REDIS_BREAKER_OPEN.set(0)

    async def _mget(self, keys: Sequence[bytes]) -> list[Any]:
        values = await self._redis.mget(keys)
        # What comes through a proxy may be anything, and answers may be out of step.
        if not isinstance(values, list) or len(values) != len(keys):
            raise InvalidResponse(
                f"{len(keys)} keys were asked for and something else than {len(keys)} values came"
            )
        return values

    async def _call(self, command: str, answer: Awaitable[_T], patience_s: float | None = None) -> _T | None:
        """Redis' answer, or None: it failed, which is counted and told to the breaker."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(patience_s or self._patience_s):
                result = await answer
        except Exception as error:  # whatever a broken server makes the client raise, no request fails for it
            kind = kind_of(error)
            REDIS_ERRORS[kind].inc()
            if kind != "busy":  # all connections in use: our own doing
                self._record(False, kind, error)
            return None
        finally:
            REDIS_DURATION[command].observe(time.perf_counter() - start)
        if command != "set":  # a server that takes writes may refuse lookups, which is what requests wait for
            self._record(True)
        return result

    def _record(self, succeeded: bool, kind: str = "", error: Exception | None = None) -> None:
        before = self._breaker.is_open
        self._breaker.record(succeeded)
        if self._breaker.is_open == before:
            return
        REDIS_BREAKER_OPEN.set(self._breaker.is_open)
        if self._breaker.is_open:
            self._opened.set()
            log.warning("redis is left alone", kind=kind, error=str(error), retry_in_s=self._breaker.wait_s)
        else:
            log.info("redis is back")

    async def _watch(self) -> None:
        """Tries the server at start, and again for as long as the breaker is open."""
        await asyncio.sleep(_SETTLE_S)
        for _ in range(_FAILURES):
            if await self._call("trial", self._mget(_TRIAL), _BACKGROUND_S) is not None:
                break
        while True:
            await self._opened.wait()
            while self._breaker.is_open:
                await asyncio.sleep(self._breaker.wait_s)
                if self._breaker.begin():
                    await self._call("trial", self._mget(_TRIAL), _BACKGROUND_S)
            self._opened.clear()

    async def _write(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._queued.clear()
                await self._queued.wait()
                continue
            entries = self._take()
            if self._breaker.is_open or not self._write_breaker.begin():
                REDIS_WRITES["dropped"].inc(len(entries))
                continue
            answers = await self._set(entries, self._ttl_ms)
            self._count(len(entries), answers)
            self._judge(answers)

    async def _watch_writes(self) -> None:
        """Tries a write where they were refused: while there is nothing to write nobody would know better."""
        while True:
            await self._refused.wait()
            while self._write_breaker.is_open:
                await asyncio.sleep(max(self._write_breaker.wait_s, _BACKGROUND_S))
                if not self._breaker.is_open and self._write_breaker.begin():
                    self._judge(await self._set([(*_TRIAL, b"")], _TRIAL_TTL_MS))
            self._refused.clear()

    async def _set(self, entries: Sequence[tuple[bytes, bytes]], ttl_ms: int) -> list[Any] | None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in entries:
            pipeline.set(key, value, px=ttl_ms)
        return await self._call("set", pipeline.execute(raise_on_error=False), _BACKGROUND_S)

    def _take(self) -> list[tuple[bytes, bytes]]:
        entries = [self._queue.popleft() for _ in range(min(len(self._queue), _KEYS_PER_COMMAND))]
        self._queued_bytes -= sum(len(key) + len(value) for key, value in entries)
        return entries

    def _count(self, entries: int, answers: list[Any] | None) -> None:
        """Counts what became of a pipeline."""
        failed = sum(isinstance(answer, Exception) for answer in answers) if answers is not None else entries
        REDIS_WRITES["failed"].inc(failed)
        REDIS_WRITES["ok"].inc(entries - failed)

    def _judge(self, answers: list[Any] | None) -> None:
        """One refusal (no room, a replica, a full disk) pauses writing."""
        failures = [answer for answer in answers or () if isinstance(answer, Exception)]
        for error in failures:
            REDIS_ERRORS[kind_of(error)].inc()
        refused = next((error for error in failures if kind_of(error) in REFUSES_WRITES), None)
        before = self._write_breaker.is_open
        if answers is not None:
            self._write_breaker.record(refused is None)
        REDIS_REFUSES_WRITES.set(self._write_breaker.is_open)
        if self._write_breaker.is_open != before:
            if refused is not None:
                self._refused.set()
                log.warning("redis refuses writes", error=str(refused))
            else:
                log.info("redis takes writes again")
