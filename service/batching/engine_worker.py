"""Threads that run the engine. One may die or hang; it is then given up and another takes its place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class WorkerDiedError(RuntimeError):
    """The thread has ended in the middle of its work."""


@dataclass(slots=True)
class _Job:
    function: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class EngineWorker:
    """A thread that does one thing at a time.

    Not an executor's thread, for Python waits for those before it exits: a hung one would hang the exit too.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Runs a function in the thread.

        Raises:
            TimeoutError: it has not returned in time; the thread may hang, `replace` it.
            WorkerDiedError: the thread has ended; `replace` it.
            Exception: what the function raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(function, future, loop))
        async with asyncio.timeout(timeout_s):
            return await future

    def replace(self) -> None:
        """Gives the thread up and starts another; one that hangs ends when, if ever, its work returns."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """Lets the thread end after its work."""
        self._jobs.put(None)

    def _start(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        result, error = None, None
        try:
            result = job.function()
        except Exception as raised:
            error = raised
        except BaseException as raised:  # the thread is told to end: SystemExit, or a fault of the runtime
            died = WorkerDiedError(f"the engine's thread died of {type(raised).__name__}")
            _deliver(job, None, died)
            return
        _deliver(job, result, error)
        del job, result, error  # an idle thread keeps no batch in memory


def _deliver(job: _Job, result: object, error: Exception | None) -> None:
    def deliver() -> None:
        if job.future.done():  # nobody waits any more: too late, or cancelled
            return
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)

    try:
        job.loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop is closed: the service has ended without waiting
        return
