"""A time limit without a timer for what is there already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.http.within import Within


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 10))


async def at_once(value: str) -> str:
    return value


async def after(seconds: float, value: str, steps: int = 1) -> str:
    for _ in range(steps):
        await asyncio.sleep(seconds / steps)
    return value


@pytest.mark.parametrize(("waits", "timers"), [(False, 0), (True, 1)])
def test_what_is_there_needs_no_timer(monkeypatch: pytest.MonkeyPatch, waits: bool, timers: int) -> None:
    async def body() -> None:
        loop, set_at = asyncio.get_running_loop(), []
        call_at = loop.call_at

        def noted(when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            set_at.append(when)
            return call_at(when, *arguments, **options)

        monkeypatch.setattr(loop, "call_at", noted)
        assert await Within(after(0, "value") if waits else at_once("value"), 60) == "value"
        assert len(set_at) == timers

    run(body())


def test_what_comes_in_time() -> None:
    async def body() -> None:
        assert await Within(after(0.02, "soon", steps=4), 5) == "soon"
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, event.set)
        assert await Within(event.wait(), 5) is True

    run(body())


@pytest.mark.parametrize("steps", [1, 50])
def test_what_does_not(steps: int) -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            await Within(after(5, "late", steps), 0.15)

    run(body())


@pytest.mark.parametrize("early", [True, False])
def test_its_own_errors_come_through(early: bool) -> None:
    async def fails() -> None:
        if not early:
            await asyncio.sleep(0.001)
        raise ValueError("its own")

    async def body() -> None:
        with pytest.raises(ValueError, match="its own"):
            await Within(fails(), 5)

    run(body())


def test_a_cancelled_wait_cancels_what_it_waits_for() -> None:
    ended: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ended.append("cancelled")
            await asyncio.sleep(0.001)  # and has something to put in order
            ended.append("in order")
            raise
        return "never"

    async def body() -> None:
        task = asyncio.ensure_future(Within(waits(), 5))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cancelled", "in order"]

    run(body())
