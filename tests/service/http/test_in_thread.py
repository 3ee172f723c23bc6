"""Work in a thread has ended when its caller goes on, however that comes about."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.outputs import Pooling
from service.answer import Answer
from service.formats import Head
from service.formats.parquet import ParquetWriter
from service.http.in_thread import in_thread
from service.http.spool import Spool
from service.outcomes import Outcome, Skipped, Tally


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 20))


def test_what_a_function_returns_or_raises() -> None:
    async def body() -> None:
        assert await in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 7, 0)

    run(body())


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_cancelled_waits_for_the_end(fails: bool) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.set()
        if fails:
            raise ValueError

    async def body() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):  # by the client's end, a deadline and the server's stop
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    run(body())


class _Product:
    """Of embeddings of three numbers, of which there are none."""

    pooling: Pooling = "mean"
    head = Head({"model": {"digest": "0"}, "pooling": "mean"}, (3,))

    def fields(self, values: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        return [{"embedding": found} for found in values]


class _SlowWriter(ParquetWriter):
    """Notes what is done while it writes."""

    def __init__(self, file: Any, head: Head, began: threading.Event) -> None:
        super().__init__(file, head)
        self.began, self.may_end = began, threading.Event()
        self.log: list[str] = []

    def add(self, items: Any) -> None:
        self.began.set()
        self.may_end.wait(10)
        super().add(items)
        self.log.append("written")

    def abandon(self) -> None:
        self.log.append("abandoned")
        super().abandon()


def test_an_answer_is_not_closed_under_the_thread_that_writes_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's writer would take the process with it."""
    began = threading.Event()
    made: list[_SlowWriter] = []

    def slow(file: Any, head: Any) -> _SlowWriter:
        made.append(_SlowWriter(file, head, began))
        return made[-1]

    monkeypatch.setattr("service.formats.parquet.ParquetWriter", slow)
    answer = Answer("parquet", _Product(), Tally(1), Spool(tmp_path, 1 << 20, 1 << 20), "id")

    async def request() -> None:
        try:
            await answer.add([Outcome(0, Skipped("empty"), 0, 0)])
        except BaseException:
            answer.close()
            raise

    async def body() -> None:
        task = asyncio.create_task(request())
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        made[0].may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made[0].log == ["written", "abandoned"]

    run(body())
