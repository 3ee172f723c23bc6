"""A time limit that costs nothing for what is there already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Within(Awaitable[Result]):
    """What is awaited, and TimeoutError if it takes longer.

    `asyncio.timeout` sets a timer in any case: a twentieth of a cached request, whose body is there.
    Here it is set at the first step that has to wait.

    Args:
        awaitable: the one to wait for.
        seconds: at most.
    """

    def __init__(self, awaitable: Awaitable[Result], seconds: float) -> None:
        self._awaitable = awaitable
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, Result]:
        """Starts it; waits if it must."""
        steps = self._awaitable.__await__()
        try:
            first = next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
        return (yield from self._wait(_Rest(first, steps)).__await__())

    async def _wait(self, rest: _Rest[Result]) -> Result:
        async with asyncio.timeout(self._seconds):
            return await rest


class _Rest(Generic[Result]):
    """An awaitable after its first step."""

    def __init__(self, first: Any, steps: Generator[Any, Any, Result]) -> None:
        self._first = first
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Result]:
        waits_for = self._first
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = self._steps.send(sent)
        except StopIteration as done:
            result: Result = done.value
            return result
