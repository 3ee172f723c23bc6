"""Engine workers that fail, die or hang: who is answered, who is not, and how long it lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from service.batcher import Batcher, Embedding
from service.batching import engine_pool
from service.engine import EngineError
from service.errors import UnavailableError
from tests.service.fake_engine import FakeEngine
from tests.service.running_batcher import Tile, tile

Body = Callable[[Batcher], Awaitable[None]]


def run(engine: FakeEngine, body: Body, *, engine_timeout_s: float = 20, max_batch_size: int = 4) -> None:
    async def main() -> None:
        batcher = Batcher(
            engine, max_batch_size=max_batch_size, queue_size=64, engine_timeout_s=engine_timeout_s
        )
        await batcher.start()
        async with asyncio.timeout(60):
            await body(batcher)
            await batcher.drain()

    asyncio.run(main())


def failing(times: int, error: type[BaseException]) -> Callable[[], None]:
    """Raises so many times, then never again."""
    left = iter(range(times))

    def fault() -> None:
        if next(left, None) is not None:
            raise error("fault of the test")

    return fault


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the batcher has no event for tests
        await asyncio.sleep(0.001)


def tiles(count: int) -> list[Tile]:
    return [tile(n) for n in range(count)]


@pytest.mark.parametrize("error", [EngineError, MemoryError, SystemExit])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_worker_that_fails_or_dies_is_replaced_and_its_tiles_are_tried_again(
    error: type[BaseException], concurrency: int
) -> None:
    engine = FakeEngine(concurrency=concurrency)
    engine.fault = failing(1, error)

    async def body(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.submit(tiles(n), "mean") for n in (1, 5, 9)))
        assert all(isinstance(result, Embedding) for answer in answers for result in answer)
        await until(lambda: batcher.healthy)
        assert engine.restarts == 1

    run(engine, body)


def test_a_hung_worker_is_given_up_and_its_tiles_are_tried_again() -> None:
    engine = FakeEngine()
    released = threading.Event()
    hangs = iter([True])
    engine.fault = lambda: released.wait() and None if next(hangs, False) else None

    async def body(batcher: Batcher) -> None:
        waiting = asyncio.create_task(batcher.submit(tiles(3), "mean"))
        assert all(isinstance(result, Embedding) for result in await waiting)
        assert engine.restarts == 1

    try:
        run(engine, body, engine_timeout_s=1)
    finally:
        released.set()


def test_a_hung_worker_that_comes_back_takes_no_tiles() -> None:
    engine = FakeEngine()
    released, hung = threading.Event(), threading.Event()
    threads: list[str] = []
    hangs = iter([True])

    def fault() -> None:
        threads.append(str(threading.get_ident()))
        if next(hangs, False):
            released.wait()
            hung.set()

    engine.fault = fault

    async def body(batcher: Batcher) -> None:
        # Not a lone tile, after whose batch no worker goes on by itself.
        assert all(isinstance(result, Embedding) for result in await batcher.submit(tiles(3), "mean"))
        engine.gate.clear()
        waiting = asyncio.create_task(batcher.submit(tiles(40), "mean"))
        await until(lambda: batcher.depth > 0)
        released.set()
        await until(hung.is_set)
        engine.gate.set()
        assert all(isinstance(result, Embedding) for result in await waiting)

    try:
        run(engine, body, engine_timeout_s=1)
    finally:
        released.set()
    assert threads.count(threads[0]) == 1


def test_a_worker_that_is_down_is_told_while_the_others_go_on() -> None:
    engine = FakeEngine(concurrency=2)
    repaired = threading.Event()
    engine.fault = failing(1, SystemExit)
    engine.restart_fault = lambda: repaired.wait() and None

    async def body(batcher: Batcher) -> None:
        [result] = await batcher.submit(tiles(1), "mean")
        assert isinstance(result, Embedding)  # the other worker's
        assert not batcher.healthy
        assert "died of SystemExit" in batcher.reason
        assert not batcher.hopeless
        assert len(await batcher.submit(tiles(8), "mean")) == 8
        repaired.set()
        await until(lambda: batcher.healthy)

    run(engine, body)


def test_an_engine_that_stays_broken_fails_those_who_wait_and_refuses_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_pool, "_FIRST_PAUSE_S", 0.01)
    engine = FakeEngine()
    engine.fault = failing(10**6, EngineError)
    engine.restart_fault = failing(6, EngineError)

    async def body(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.submit(tiles(n), "mean") for n in (1, 6)))
        for result in (result for answer in answers for result in answer):
            assert isinstance(result, UnavailableError)
            assert result.code == "engine-failed"
            assert "fault of the test" in str(result)
        with pytest.raises(UnavailableError, match="fault of the test") as refused:
            batcher.check()
        assert int(refused.value.headers["Retry-After"]) >= 1
        engine.fault = lambda: None
        await until(lambda: batcher.healthy)
        assert isinstance((await batcher.submit(tiles(1), "mean"))[0], Embedding)
        assert not batcher.hopeless

    run(engine, body)


def test_an_engine_that_never_comes_back_asks_for_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_pool, "_FIRST_PAUSE_S", 0.001)
    engine = FakeEngine()
    engine.fault = engine.restart_fault = failing(10**6, EngineError)

    async def body(batcher: Batcher) -> None:
        await batcher.submit(tiles(1), "mean")
        await until(lambda: batcher.hopeless)

    run(engine, body)


def test_a_result_that_is_not_finite_fails_its_tile_alone() -> None:
    engine = FakeEngine()

    async def body(batcher: Batcher) -> None:
        good, bad = tile(0), tile(1)
        bad[1][0, 0] = float("nan")
        before, failed, after = await batcher.submit([good, bad, good], "mean")
        assert isinstance(before, Embedding)
        assert isinstance(after, Embedding)
        assert isinstance(failed, UnavailableError)
        assert "not finite" in str(failed)
        assert engine.batches == [3]
        assert batcher.healthy

    run(engine, body)
