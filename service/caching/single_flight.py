"""What several requests want at the same moment is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
W = TypeVar("W")


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
        compute: Callable[[Mapping[bytes, W]], Awaitable[Mapping[bytes, T]]],
    ) -> tuple[dict[bytes, T], int]:
        """The results of all keys.

        Args:
            wanted: key → what its result is computed from.
            compute: gives the result of every key it is given; what it raises is raised here.

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
        compute: Callable[[Mapping[bytes, W]], Awaitable[Mapping[bytes, T]]],
    ) -> Mapping[bytes, T]:
        loop = asyncio.get_running_loop()
        for key in led:
            self._flying[key] = loop.create_future()
        results: Mapping[bytes, T] = {}
        try:
            results = await compute(led)
            return results
        finally:
            for key in led:
                self._flying.pop(key).set_result(results.get(key))
