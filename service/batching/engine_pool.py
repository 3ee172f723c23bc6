"""The engine's workers: which are idle, which are being restarted and why, and whether there is hope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from service.batching.engine_worker import EngineWorker, Job, WorkerDiedError
from service.engine import Engine, EngineError
from service.telemetry import metrics

log = structlog.get_logger()

T = TypeVar("T")

# Pauses between attempts to restart a worker: none before the first, then doubling.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_END_S = 1.0  # for idle workers to end, which takes a moment; one that hangs is left behind
# Failures in a row, with no worker left, after which nothing should wait for the engine ...
_BROKEN_AFTER = 3
# ... and after which only a new process may help.
_HOPELESS_AFTER = 8


class EnginePool:
    """As many workers as the engine runs batches at once.

    Args:
        engine: that they run.
        timeout_s: after which a call that has not come back is given up as hung.
        changed: called when a worker is idle again, or has failed.
    """

    def __init__(self, engine: Engine, timeout_s: float, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._changed = changed
        self._workers = [EngineWorker(f"engine-{n}") for n in range(engine.concurrency)]
        self._idle = list(self._workers)
        self._restarting: set[asyncio.Task[None]] = set()
        self._failures = 0  # in a row
        self.reason = ""  # of the last failure
        metrics.ENGINE_WORKERS.set(len(self._workers))

    @property
    def idle(self) -> int:
        """Workers that wait for work."""
        return len(self._idle)

    @property
    def healthy(self) -> bool:
        """Whether every worker works."""
        return not self._restarting

    @property
    def broken(self) -> bool:
        """Whether no worker works and the next restart will hardly help."""
        return self._failures >= _BROKEN_AFTER and len(self._restarting) == len(self._workers)

    @property
    def hopeless(self) -> bool:
        """Whether restarting the workers does not help; a new process might."""
        return self._failures >= _HOPELESS_AFTER

    @property
    def pause_s(self) -> float:
        """How long it waits before the next restart."""
        if self._failures <= 1:
            return 0
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self._failures - 2))

    def begin(self, job: Job[Any]) -> EngineWorker:
        """Gives a job to an idle worker, which is idle again when it and all that follow it are done."""
        worker = self._idle.pop()
        worker.begin(job)
        return worker

    async def result(self, worker: EngineWorker, job: Job[T]) -> T:
        """What the job has returned. If another follows it, the worker has begun that one already.

        Raises:
            EngineError: the worker failed, died or hung, and is restarted; says why. A job that was to
                follow will not be done.
        """
        try:
            result = await worker.result(job, self._timeout_s)
        except Exception as error:
            self._note(error)
            task = asyncio.create_task(self._restart(worker))
            self._restarting.add(task)
            metrics.ENGINE_WORKERS.set(len(self._workers) - len(self._restarting))
            self._changed()
            raise EngineError(self.reason) from error
        self._failures = 0
        if job.following is None:
            self._idle.append(worker)
        return result

    async def stop(self) -> None:
        """Ends the workers; does not wait long for those that are busy."""
        for task in self._restarting:
            task.cancel()
        for worker in self._workers:
            worker.stop()
        until = asyncio.get_running_loop().time() + _END_S
        while not all(worker.ended for worker in self._workers):
            if asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.001)

    async def _restart(self, worker: EngineWorker) -> None:
        restarted = False
        while not restarted:
            await asyncio.sleep(self.pause_s)
            worker.replace()
            try:
                await worker.call(self._engine.restart, self._timeout_s)
                restarted = True
            except Exception as error:
                self._note(error)
                self._changed()
        metrics.ENGINE_RESTARTS.inc()
        log.warning("engine worker restarted", failures=self._failures)
        self._restarting = {task for task in self._restarting if task is not asyncio.current_task()}
        metrics.ENGINE_WORKERS.set(len(self._workers) - len(self._restarting))
        self._idle.append(worker)
        self._changed()

    def _note(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self.reason = f"no result within {self._timeout_s:g} s; given up as hung"
        else:
            self.reason = str(error) or type(error).__name__
        metrics.ENGINE_FAILURES.inc()
        self._failures += 1
        known = isinstance(error, TimeoutError | WorkerDiedError | EngineError)
        log.error(
            "engine failed", reason=self.reason, in_a_row=self._failures, exc_info=None if known else error
        )
