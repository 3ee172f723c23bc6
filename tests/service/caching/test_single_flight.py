"""Sharing computations under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from service.caching.single_flight import Land, SingleFlight


class _Work:
    """Computes lengths of texts once its gate is open; says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[set[bytes]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, wanted: Mapping[bytes, str], land: Land[int]) -> dict[bytes, int]:
        self.asked.append(set(wanted))
        self.land = land
        await self.gate.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return {key: len(text) for key, text in wanted.items()}


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_equal_keys_are_computed_once_across_callers() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        first = asyncio.create_task(flights.run({b"a": "1", b"b": "22"}, work))
        await _settle()
        second = asyncio.create_task(flights.run({b"b": "22", b"c": "333"}, work))
        third = asyncio.create_task(flights.run({b"a": "1", b"c": "333"}, work))
        await _settle()
        work.gate.set()
        assert await first == ({b"a": 1, b"b": 2}, 0)
        assert await second == ({b"b": 2, b"c": 3}, 1)
        assert await third == ({b"a": 1, b"c": 3}, 2)
        assert work.asked == [{b"a", b"b"}, {b"c"}]
        assert len(flights) == 0
        await flights.run({b"a": "1"}, work)  # nothing is remembered afterwards
        assert len(work.asked) == 3

    asyncio.run(main())


def test_a_cancelled_leader_fails_nobody() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        leader = asyncio.create_task(flights.run({b"a": "1"}, work))
        await _settle()
        followers = [asyncio.create_task(flights.run({b"a": "1"}, work)) for _ in range(5)]
        await _settle()
        leader.cancel()
        await _settle()
        work.gate.set()
        assert [result for result, _ in await asyncio.gather(*followers)] == [{b"a": 1}] * 5
        assert work.asked == [{b"a"}, {b"a"}]  # one of them took over for all
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert len(flights) == 0

    asyncio.run(main())


def test_a_cancelled_follower_leaves_the_computation_alone() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        leader = asyncio.create_task(flights.run({b"a": "1"}, work))
        await _settle()
        follower = asyncio.create_task(flights.run({b"a": "1"}, work))
        await _settle()
        follower.cancel()
        await _settle()
        work.gate.set()
        assert await leader == ({b"a": 1}, 0)
        assert follower.cancelled()

    asyncio.run(main())


def test_a_leader_that_is_refused_fails_alone() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        work.error = RuntimeError("queue full")
        leader = asyncio.create_task(flights.run({b"a": "1"}, work))
        await _settle()
        follower = asyncio.create_task(flights.run({b"a": "1"}, work))
        await _settle()
        work.gate.set()
        assert await follower == ({b"a": 1}, 0)
        with pytest.raises(RuntimeError, match="queue full"):
            await leader

    asyncio.run(main())


def test_callers_that_lead_and_follow_each_other_do_not_wait_for_ever() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        tasks = [
            asyncio.create_task(flights.run({bytes([i]): "x", bytes([(i + 1) % 4]): "x"}, work))
            for i in range(4)
        ]
        await _settle()
        work.gate.set()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*tasks)
        assert all(len(result) == 2 for result, _ in results)
        assert sum(map(len, work.asked)) == 4

    asyncio.run(main())


def test_a_follower_waits_for_its_own_key_only() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        leader = asyncio.create_task(flights.run({b"a": "1", b"b": "22"}, work))
        await _settle()
        follower = asyncio.create_task(flights.run({b"b": "22"}, work))
        await _settle()
        work.land(b"b", 2)
        assert await follower == ({b"b": 2}, 1)
        assert not leader.done()
        assert await flights.run({b"b": "22"}, work) == ({b"b": 2}, 1)  # also who comes after it has landed
        work.gate.set()
        assert await leader == ({b"a": 1, b"b": 2}, 0)
        assert len(flights) == 0
        assert work.asked == [{b"a", b"b"}]

    asyncio.run(main())


def test_what_has_landed_stays_when_the_leader_is_cancelled() -> None:
    async def main() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = _Work()
        leader = asyncio.create_task(flights.run({b"a": "1", b"b": "22"}, work))
        await _settle()
        follower = asyncio.create_task(flights.run({b"a": "1", b"b": "22"}, work))
        await _settle()
        work.land(b"b", 2)
        leader.cancel()
        await _settle()
        work.gate.set()
        assert await follower == ({b"a": 1, b"b": 2}, 1)
        assert work.asked == [{b"a", b"b"}, {b"a"}]
        assert len(flights) == 0

    asyncio.run(main())
