"""Threads that run the engine. One may die or hang; it is then given up and another takes its place."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_LAST_WAIT_S = 5.0  # for a batch under way when Python exits; a hung one does not keep the process


class _Thread(threading.Thread):
    """Works until it finds None among its jobs."""

    def __init__(self, name: str) -> None:
        self.jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        super().__init__(target=_work, args=(self.jobs,), name=name, daemon=True)


_threads: WeakSet[_Thread] = WeakSet()


class WorkerDiedError(RuntimeError):
    """The thread has ended in the middle of its work."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Generic[T]):
    """What a worker is to do, and what it goes on with.

    When `function` has returned, the thread asks `follow` for the next job and begins it at once, so that it
    does not stand still until the event loop has heard of the result. Whoever awaits the result looks at
    `following` then: that job's result is to be awaited too. `began` and `ended` are when the thread did
    (performance counter, seconds).
    """

    function: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]
    follow: Callable[[], Job[T] | None] | None = None
    following: Job[T] | None = None
    began: float = 0.0
    ended: float = 0.0
    _given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> T:
        """Does it, and chooses what follows; called by the worker's thread."""
        self.began = time.perf_counter()
        result = self.function()
        self.ended = time.perf_counter()
        with self._lock:
            if self.follow is not None and not self._given_up and not self.loop.is_closed():
                self.following = self.follow()
        return result

    def give_up(self) -> None:
        """Nobody waits for it any more: the thread, should it come back, begins nothing else."""
        with self._lock:
            self._given_up = True


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

    def begin(self, job: Job[Any]) -> None:
        """Gives the thread something to do."""
        self._thread.jobs.put(job)

    async def result(self, job: Job[T], timeout_s: float) -> T:
        """What a job that the thread was given has returned.

        Raises:
            TimeoutError: it has not returned in time; the thread may hang, `replace` it.
            WorkerDiedError: the thread has ended; `replace` it.
            Exception: what the function raised.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await job.future
        except TimeoutError:
            job.give_up()
            raise

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Runs a function in the thread; raises as `result`."""
        loop = asyncio.get_running_loop()
        job = Job(function=function, loop=loop, future=loop.create_future())
        self.begin(job)
        return await self.result(job, timeout_s)

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


def _work(jobs: SimpleQueue[Job[Any] | None]) -> None:
    while (given := jobs.get()) is not None:
        job: Job[Any] | None = given
        del given  # an idle thread keeps no batch in memory
        while job is not None:
            result, error = None, None
            try:
                result = job.run()
            except Exception as raised:
                error = raised
            except BaseException as raised:  # told to end by SystemExit, or a fault of the runtime
                died = WorkerDiedError(f"the engine's thread died of {type(raised).__name__}")
                _deliver(job, None, died)
                return
            _deliver(job, result, error)
            job = job.following
            del result, error


def _deliver(job: Job[Any], result: object, error: Exception | None) -> None:
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
