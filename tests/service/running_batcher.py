"""A batcher in front of a fake engine, for as long as a test's body runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from service.batcher import Batcher, Embedding
from tests.service.fake_engine import FakeEngine

Tile = tuple[np.ndarray, np.ndarray]


def tile(seed: int) -> Tile:
    rng = np.random.default_rng(seed)
    dn = rng.integers(1, 60_000, (7, 40, 40), dtype=np.uint16)
    return dn, rng.normal(size=(4, 2)).astype(np.float32)


def run(
    body: Callable[[Batcher, FakeEngine], Awaitable[None]],
    *,
    engine: FakeEngine | None = None,
    max_batch_size: int = 4,
    queue_size: int = 16,
    max_queue_delay_s: float = 0,
) -> FakeEngine:
    engine = engine or FakeEngine()

    async def main() -> None:
        batcher = Batcher(
            engine,
            max_batch_size=max_batch_size,
            queue_size=queue_size,
            max_queue_delay_s=max_queue_delay_s,
        )
        await batcher.start()
        try:
            async with asyncio.timeout(60):
                await body(batcher, engine)
        finally:
            engine.gate.set()
            await batcher.drain()

    asyncio.run(main())
    return engine


async def entered(engine: FakeEngine, workers: int = 1) -> None:
    """Waits until the engine's gate holds a batch of each of so many workers."""
    async with asyncio.timeout(60):
        while engine.inside < workers:  # noqa: ASYNC110  # they are threads
            await asyncio.sleep(0.001)


def values(results: list[Embedding | BaseException]) -> np.ndarray:
    assert all(isinstance(result, Embedding) for result in results), results
    return np.stack([result.values for result in results if isinstance(result, Embedding)])
