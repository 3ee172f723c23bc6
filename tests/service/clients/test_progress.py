"""What a command shows of its work."""

from __future__ import annotations

import asyncio

from service.clients.progress import WorkProgress


class Client:
    """Of which nothing is asked but how far a scene is."""

    async def windows(self, request_id: str) -> tuple[int, int] | None:
        assert len(request_id) == 32
        return 5, 20


def test_tiles_and_windows_add_up() -> None:
    shown: list[tuple[float, str]] = []
    progress = WorkProgress(lambda done, text: shown.append((done, text)), every_s=0)

    async def work() -> None:
        async with progress.scene(Client()), progress.scene(Client()):  # type: ignore[arg-type]
            while not shown or shown[-1][1] != "10 of 40 windows":  # noqa: ASYNC110  # wakes nobody
                await asyncio.sleep(0)
            assert shown[-1] == (0.5, "10 of 40 windows")
            progress.finished(1)

    asyncio.run(asyncio.wait_for(work(), 30))
    progress.finished(1)
    assert shown[-1] == (2, "40 of 40 windows")


def test_without_scenes_tiles_alone_are_shown() -> None:
    shown: list[tuple[float, str]] = []
    progress = WorkProgress(lambda done, text: shown.append((done, text)))
    progress.finished(32)
    progress.finished(3)
    assert shown == [(32, ""), (35, "")]
