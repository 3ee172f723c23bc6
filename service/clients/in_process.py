"""The application inside this process, behind the client: what it answers is what the server would."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings


class InProcessTransport(httpx.ASGITransport):
    """httpx's transport to an application, which is started and stopped with it.

    Args:
        settings: of the application.
        app: instead of one made from the settings.
    """

    def __init__(self, settings: Settings, app: FastAPI | None = None) -> None:
        self._application = create_app(settings) if app is None else app
        self._running = AsyncExitStack()
        super().__init__(self._application, raise_app_exceptions=False)

    async def __aenter__(self) -> Self:
        """Starts the application.

        Raises:
            BundleError, EngineError: its model cannot be used.
        """
        await self._running.enter_async_context(self._application.router.lifespan_context(self._application))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Finishes what is under way and stops the application."""
        await self._running.__aexit__(kind, error, trace)
