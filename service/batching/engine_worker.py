"""Threads that run the engine. One may die or hang; it is then given up and another takes its place."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_LAST_WAIT_S = 5.0  # for a batch under way when Python exits; a hung one does not keep the process


class _Thread(threading.Thread):
    """Works until it finds None among its jobs."""

    def __init__(self, name: str) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        super().__init__(target=_work, args=(self.jobs,), name=name, daemon=True)


_threads: WeakSet[_Thread] = WeakSet()


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
    For these it waits a moment, since one that comes back from C++ when Python has ended aborts the process.

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
        self._thread.jobs.put(_Job(function, future, loop))
        async with asyncio.timeout(timeout_s):
            return await future

    def replace(self) -> None:
        """Gives the thread up and starts another; one that hangs ends when, if ever, its work returns."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """Lets the thread end after its work."""
        self._thread.jobs.put(None)

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def _start(self) -> None:
        self._thread = _Thread(self._name)
        _threads.add(self._thread)
        self._thread.start()


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


@atexit.register
def _end_all() -> None:
    """Also where nobody stopped them, as after an error or a second Ctrl-C."""
    until = time.monotonic() + _LAST_WAIT_S
    threads = list(_threads)
    for thread in threads:
        thread.jobs.put(None)
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
