"""What several requests want at the same moment is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
W = TypeVar("W")


Land = Callable[[bytes, T], None]
"""Tells a key's result to those who wait for it, before the rest of the computation is done."""


class SingleFlight(Generic[W, T]):
    """Computations under way by key. Who asks first computes; who asks meanwhile shares the result.

    A computation that ends without a result (its request was cancelled, refused or too late) fails nobody
    else: those who waited for it compute for themselves.
    """

    def __init__(self) -> None:
        self._flying: dict[bytes, asyncio.Future[T | None]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    async def run(
        self,
        wanted: Mapping[bytes, W],
        compute: Callable[[Mapping[bytes, W], Land[T]], Awaitable[Mapping[bytes, T]]],
    ) -> tuple[dict[bytes, T], int]:
        """The results of all keys.

        Args:
            wanted: key → what its result is computed from.
            compute: gives the result of every key it is given; what it raises is raised here. It may tell
                results as they come.

        Returns:
            Key → result, and how many of them were somebody else's.
        """
        results: dict[bytes, T] = {}
        shared = 0
        while missing := {key: what for key, what in wanted.items() if key not in results}:
            followed = {key: self._flying[key] for key in missing if key in self._flying}
            led = {key: what for key, what in missing.items() if key not in followed}
            if led:
                results.update(await self._lead(led, compute))
            if followed:
                await asyncio.wait(followed.values())  # unlike gather, does not cancel what it waits for
            for key, future in followed.items():
                if (result := future.result()) is not None:
                    results[key] = result
                    shared += 1
        return results, shared

    async def _lead(
        self,
        led: Mapping[bytes, W],
        compute: Callable[[Mapping[bytes, W], Land[T]], Awaitable[Mapping[bytes, T]]],
    ) -> Mapping[bytes, T]:
        loop = asyncio.get_running_loop()
        futures: dict[bytes, asyncio.Future[T | None]] = {key: loop.create_future() for key in led}
        self._flying.update(futures)

        def land(key: bytes, result: T) -> None:
            if not futures[key].done():
                futures[key].set_result(result)

        results: Mapping[bytes, T] = {}
        try:
            results = await compute(led, land)
            return results
        finally:
            for key, future in futures.items():
                del self._flying[key]
                if not future.done():
                    future.set_result(results.get(key))
