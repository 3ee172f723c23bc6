"""What a command shows of its work: tiles that are done, and how far the scenes under way are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from service.clients.async_client import AsyncClient

Show = Callable[[float, str], None]  # tiles done, of a scene under way the part that is; and a text


class WorkProgress:
    """Adds up what is done, and shows it.

    Args:
        show: called whenever there is more.
        every_s: from one look at a scene to the next.
    """

    def __init__(self, show: Show, every_s: float = 0.5) -> None:
        self._show = show
        self._every_s = every_s
        self._tiles = 0
        self._scenes: dict[str, tuple[int, int]] = {}  # done and all windows, by the request's id
        self._windows = 0  # of scenes that are done

    def finished(self, tiles: int) -> None:
        """A request with so many tiles was answered, or will not be."""
        self._tiles += tiles
        self._tell()

    @asynccontextmanager
    async def scene(self, client: AsyncClient) -> AsyncIterator[str]:
        """Asks how far a scene is while it is computed; gives the id to send its request with."""
        request_id = uuid4().hex
        watching = asyncio.create_task(self._watch(client, request_id))
        try:
            yield request_id
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            self._windows += self._scenes.pop(request_id, (0, 0))[1]

    async def _watch(self, client: AsyncClient, request_id: str) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            found = await client.windows(request_id)
            if found is not None:
                self._scenes[request_id] = found
                self._tell()

    def _tell(self) -> None:
        under_way = sum(done / windows for done, windows in self._scenes.values() if windows)
        done = self._windows + sum(done for done, _ in self._scenes.values())
        windows = self._windows + sum(windows for _, windows in self._scenes.values())
        self._show(self._tiles + under_way, f"{done:,} of {windows:,} windows" if windows else "")
