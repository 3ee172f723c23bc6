"""The batcher: what shares a batch, what is refused, what is dropped, and what a failure takes with it."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from service import batcher as batcher_module
from service.batcher import Batcher, Embedding
from service.errors import OverloadedError, UnavailableError
from tests.service.fake_engine import FakeEngine, expected
from tests.service.running_batcher import entered, run, tile, values


def test_results_come_back_in_order_whatever_they_shared_a_batch_with() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        requests = [([tile(10 * r + i) for i in range(r + 1)], ("mean", "tokens")[r % 2]) for r in range(5)]
        answers = await asyncio.gather(*(batcher.submit(tiles, output) for tiles, output in requests))
        for (tiles, output), answer in zip(requests, answers, strict=True):
            want = expected(np.stack([dn for dn, _ in tiles]), np.stack([m for _, m in tiles]), output)
            assert np.array_equal(values(answer), want)

    engine = run(body)
    assert sum(engine.batches) == 15
    assert max(engine.batches) <= 4


@pytest.mark.parametrize(("tiles", "batches"), [(14, [7, 4, 2, 1]), (30, [8, 8, 7, 4, 2, 1])])
def test_batches_get_smaller_as_the_queue_does_but_not_than_a_chunk(tiles: int, batches: list[int]) -> None:
    """So that no worker is left without work while another has a large batch."""

    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(n) for n in range(2)], "mean"))
        await entered(engine, workers=2)
        rest = asyncio.create_task(batcher.submit([tile(n) for n in range(tiles)], "mean"))
        await asyncio.sleep(0.01)
        engine.gate.set()
        values(await first)
        values(await rest)

    engine = FakeEngine(concurrency=2)
    engine.chunk_size = 2
    run(body, engine=engine, max_batch_size=8, queue_size=64)
    assert sorted(engine.batches) == sorted([1, 1, *batches])


def test_a_worker_goes_on_while_the_event_loop_is_busy() -> None:
    """With something else, for as long as it takes."""

    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        waiting = asyncio.create_task(batcher.submit([tile(n) for n in range(10)], "mean"))
        await entered(engine)
        engine.gate.set()
        end = time.monotonic() + 60
        while len(engine.batches) < 3 and time.monotonic() < end:
            time.sleep(0.001)  # noqa: ASYNC251  # nothing else runs on the loop meanwhile: that is the point
        assert engine.batches == [4, 4, 2]
        assert len(values(await waiting)) == 10

    run(body)


def test_a_worker_begins_nothing_more_when_draining_was_given_up() -> None:
    """The time to finish is over: the process is to end after the batch under way, not after the queue."""
    engine = FakeEngine()

    async def main() -> None:
        batcher = Batcher(engine, max_batch_size=4, queue_size=64)
        await batcher.start()
        engine.gate.clear()
        waiting = asyncio.create_task(batcher.submit([tile(n) for n in range(10)], "mean"))
        await entered(engine)
        draining = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        draining.cancel()
        await asyncio.sleep(0.01)
        engine.gate.set()
        await asyncio.gather(draining, return_exceptions=True)
        while not engine.batches:  # noqa: ASYNC110  # a thread appends
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    assert engine.batches == [4]


@pytest.mark.parametrize(("requests", "batches"), [(6, [3, 2, 1]), (1, [4, 2])])
def test_of_few_tiles_of_several_requests_some_wait_for_the_worker_that_is_done_first(
    requests: int, batches: list[int]
) -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(n) for n in range(2)], "mean"))
        await entered(engine, workers=2)
        each = 6 // requests
        tiles = [[tile(n * each + i) for i in range(each)] for n in range(requests)]
        rest = [asyncio.create_task(batcher.submit(request, "mean")) for request in tiles]
        await asyncio.sleep(0.01)
        engine.gate.set()
        for task in (first, *rest):
            values(await task)

    engine = FakeEngine(concurrency=2)
    engine.chunk_size = 4
    run(body, engine=engine, max_batch_size=8)
    assert sorted(engine.batches) == sorted([1, 1, *batches])


def test_tiles_that_arrive_during_a_batch_share_the_next_one() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(0)], "mean"))
        await entered(engine)
        rest = [asyncio.create_task(batcher.submit([tile(n)], "mean")) for n in range(1, 4)]
        await asyncio.sleep(0.01)
        assert batcher.depth == 3
        engine.gate.set()
        [alone] = await first
        together = [(await task)[0] for task in rest]
        assert [alone.batch_size, *(t.batch_size for t in together)] == [1, 3, 3, 3]
        assert together[0].queued_s > 0

    assert run(body).batches == [1, 3]


def test_a_request_larger_than_a_batch_is_split() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        assert len(values(await batcher.submit([tile(n) for n in range(10)], "cls"))) == 10

    assert run(body).batches == [4, 4, 2]


def test_a_delay_gathers_and_a_full_batch_does_not_wait() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        slow = asyncio.create_task(batcher.submit([tile(0)], "mean"))
        await asyncio.sleep(0.05)
        await batcher.submit([tile(n) for n in (1, 2, 3)], "mean")
        await slow

    assert run(body, max_queue_delay_s=1000).batches == [4]


def test_a_full_queue_refuses_the_whole_request_and_says_when_to_come_back() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        tasks = [asyncio.create_task(batcher.submit([tile(0)], "mean"))]
        await entered(engine)
        tasks.append(asyncio.create_task(batcher.submit([tile(n) for n in range(1, 4)], "mean")))
        await asyncio.sleep(0)
        with pytest.raises(
            OverloadedError, match="2 tiles came, 3 are being prepared or waiting; expected at most 4"
        ) as refused:
            await batcher.submit([tile(8), tile(9)], "mean")
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        assert batcher.depth == 3
        tasks.append(asyncio.create_task(batcher.submit([tile(8)], "mean")))  # fits
        await asyncio.sleep(0)
        engine.gate.set()
        assert [len(values(await task)) for task in tasks] == [1, 3, 1]

    run(body, queue_size=4)


def test_an_idle_service_takes_a_request_larger_than_the_queue() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        assert len(values(await batcher.submit([tile(n) for n in range(9)], "mean"))) == 9

    run(body, queue_size=4)


def test_abandoned_tiles_never_reach_the_engine() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(0)], "mean"))
        await entered(engine)
        gone = asyncio.create_task(batcher.submit([tile(1), tile(2)], "mean"))
        stays = asyncio.create_task(batcher.submit([tile(3)], "mean"))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        engine.gate.set()
        assert len(values(await first)) == len(values(await stays)) == 1

    assert run(body).batches == [1, 1]


def test_abandoning_the_batch_that_runs_harms_nobody() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        gone = asyncio.create_task(batcher.submit([tile(0)], "mean"))
        await entered(engine)
        gone.cancel()
        engine.gate.set()
        assert len(values(await batcher.submit([tile(1)], "mean"))) == 1

    run(body)


def test_one_bad_tile_fails_alone() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        good, bad = tile(0), tile(1)
        good[0][0, 0, 0], bad[0][0, 0, 0] = 1, 666
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(2)], "mean"))
        await entered(engine)
        mates = asyncio.create_task(batcher.submit([good, bad, good], "mean"))
        await asyncio.sleep(0.01)
        engine.gate.set()
        await first
        before, failed, after = await mates
        assert isinstance(before, Embedding)
        assert isinstance(after, Embedding)
        assert isinstance(failed, UnavailableError)
        assert failed.code == "engine-failed"
        assert batcher.healthy  # the last batch succeeded

    assert run(body, engine=FakeEngine(poison=666)).batches == [1, 3, 1, 1, 1]


def test_draining_finishes_what_waits_and_takes_nothing_more() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        task = asyncio.create_task(batcher.submit([tile(n) for n in range(6)], "mean"))
        await entered(engine)
        draining = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0.01)
        assert not batcher.healthy
        with pytest.raises(UnavailableError):
            await batcher.submit([tile(7)], "mean")
        engine.gate.set()
        await draining
        assert len(values(await task)) == 6

    run(body)


def test_results_are_arrays_of_their_own() -> None:
    """A kept result must not keep its whole batch in memory."""

    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        results = values(await batcher.submit([tile(0)], "tokens"))
        [again] = await batcher.submit([tile(0)], "tokens")
        assert isinstance(again, Embedding)
        assert again.values.base is None
        assert np.array_equal(results[0], again.values)

    run(body)


def test_clients_in_turn_do_not_get_all_threads_where_one_after_another_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        for seed in range(3):  # one client
            values(await batcher.submit([tile(seed)], "mean"))
        assert engine.alone == [True] * 3
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(3)], "mean"))
        await entered(engine)
        second = asyncio.create_task(batcher.submit([tile(4)], "mean"))  # another
        await asyncio.sleep(0.01)
        engine.gate.set()
        await asyncio.gather(first, second)
        values(await batcher.submit([tile(5)], "mean"))  # the engine is idle, but the other will soon be back
        assert engine.alone[3:] == [True, False, False]
        monkeypatch.setattr(batcher_module, "_APART_S", 0.01)
        await asyncio.sleep(0.05)
        values(await batcher.submit([tile(6)], "mean"))  # it was not
        assert engine.alone[6:] == [True]

    monkeypatch.setattr(batcher_module, "_APART_S", 60)
    run(body, engine=FakeEngine(concurrency=2))
