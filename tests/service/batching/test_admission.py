"""Who is let in, when the refused should return, whose turn it is, and how long a request may take."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Batcher
from service.batching.admission import Gate
from service.batching.tile_queue import TileQueue, Waiting
from service.errors import OverloadedError
from tests.service.fake_engine import FakeEngine
from tests.service.running_batcher import entered, run, tile

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}


def refused_s(gate: Gate, tiles: int) -> int:
    with pytest.raises(OverloadedError) as refused:
        gate.check(tiles)
    return int(refused.value.headers["Retry-After"])


def measured(gate: Gate, tiles_per_s: int) -> Gate:
    gate.measure(tiles_per_s, 1.0)
    assert gate.tiles_per_s == tiles_per_s
    return gate


def test_room_is_counted_in_tiles_from_admission_to_the_queue() -> None:
    waiting = 0
    gate = Gate(10, 30, lambda: waiting)
    with gate.admit(8) as admission:
        with pytest.raises(
            OverloadedError, match="3 tiles came, 8 are being prepared or waiting; expected at most 10"
        ):
            gate.admit(3)
        waiting = 5
        admission.use(5)  # five are in the queue, three are still being decoded
        assert gate.inside == 8
        gate.check(2)
    assert gate.inside == 5  # the three turned out to be unreadable


def test_a_slow_engine_is_not_given_more_than_it_can_answer_in_time() -> None:
    gate = measured(Gate(1000, 30, lambda: 100), 2)
    assert gate.capacity == 30  # 15 s of work
    refused_s(gate, 1)
    assert measured(Gate(1000, 30, lambda: 100), 500).capacity == 1000


def trickle(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile every half second, computed in 10 ms; nothing waits for the engine."""
    for n in range(60):
        monkeypatch.setattr("service.batching.admission.time.monotonic", lambda n=n: n / 2)
        gate.measure(1, 0.01)


def test_an_idle_engine_is_not_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a scene that is being opened nor a file that takes long to read says how fast the engine is."""
    gate = Gate(1000, 30, lambda: 0, preparers=2)
    with gate.admit(256, ahead=True), gate.admit(1):
        trickle(gate, monkeypatch)
    assert gate.tiles_per_s == pytest.approx(100)
    with gate.admit(64):  # more than can be prepared at a time: some wait
        trickle(gate, monkeypatch)
    assert gate.tiles_per_s < 3


def test_room_for_a_scene_counts_until_its_first_windows_are_read() -> None:
    gate = Gate(300, 30, lambda: 0)
    with gate.admit(256, ahead=True) as admission:
        with pytest.raises(OverloadedError):
            gate.check(64)
        admission.release()
        gate.check(64)
        admission.use(256)  # what is submitted later changes nothing
        assert gate.inside == 0
    assert gate.inside == 0


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(1, 7),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 11)), max_size=10),
)
def test_requests_take_turns_and_nothing_is_forgotten(
    sizes: list[int], batch_size: int, gone: list[tuple[int, int]]
) -> None:
    loop = asyncio.new_event_loop()
    queue = TileQueue()
    requests = [
        [Waiting(np.empty(0), np.empty(0), f"{r}", loop.create_future()) for _ in range(size)]
        for r, size in enumerate(sizes)
    ]
    for request in requests:
        queue.put(request)
    cancelled = [requests[r][i] for r, i in set(gone) if r < len(requests) and i < len(requests[r])]
    for waiting in cancelled:
        waiting.future.cancel()
    taken: list[Waiting] = []
    dropped = 0
    while len(queue):
        batch, skipped = queue.take(batch_size)
        assert len(batch) <= batch_size
        taken += batch
        dropped += skipped
    assert dropped == len(cancelled)
    for request in requests:  # each once, in its order
        assert [t for t in taken if any(t is r for r in request)] == [
            t for t in request if not t.future.cancelled()
        ]
    if not cancelled:  # at any moment, two requests with tiles left have been given equally many, but one
        given_so_far: Counter[str] = Counter()
        for waiting in taken:
            given_so_far[waiting.output] += 1
            left = [f"{r}" for r, size in enumerate(sizes) if given_so_far[f"{r}"] < size]
            assert max((given_so_far[r] for r in left), default=0) <= 1 + min(
                (given_so_far[r] for r in left), default=0
            )
    loop.close()


def test_a_single_tile_does_not_wait_behind_a_large_request() -> None:
    async def body(batcher: Batcher, engine: FakeEngine) -> None:
        engine.gate.clear()
        large = asyncio.create_task(batcher.submit([tile(n % 7) for n in range(500)], "mean"))
        await entered(engine)
        single = asyncio.create_task(batcher.submit([tile(1)], "cls"))
        await asyncio.sleep(0)
        engine.gate.set()
        await single
        # It is next to the one in flight.
        assert ["cls" in outputs for outputs in engine.asked[:2]] == [False, True]
        await large

    run(body, queue_size=600)


def test_a_lone_tile_has_all_threads_and_a_crowd_does_not() -> None:
    engine = FakeEngine(concurrency=4)

    async def body(batcher: Batcher, _: FakeEngine) -> None:
        await batcher.submit([tile(0)], "mean")
        await batcher.submit([tile(0)], "mean")
        assert engine.alone == [True, True]
        engine.gate.clear()
        crowd = asyncio.create_task(batcher.submit([tile(n) for n in range(8)], "mean"))
        await entered(engine, workers=4)
        engine.gate.set()
        await crowd
        assert engine.alone[2:] == [False] * 4  # two tiles for each worker
        assert engine.batches[2:] == [2, 2, 2, 2]
        # Clients in turn: each finds the engine at work, so that each has a worker of its own.
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit([tile(0)], "mean"))
        await entered(engine)
        second = asyncio.create_task(batcher.submit([tile(1)], "mean"))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, second)
        assert engine.alone[6:] == [True, False]

    run(body, engine=engine)
