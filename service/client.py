"""A client of the service: tiles of any number in, typed results out.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.embed(["a.tif", "b.tif"], pooling="cls")
        answer.array()  # float32 (2, 144)

`AsyncClient` is the same for asyncio. Both divide many tiles into requests, send a few of them at a time, and
wait as the service asks (Retry-After) when it is busy. A `Tile` is a file or array with what is said of it;
errors are `ClientError`s, whose tree stands in `service.clients.errors`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.clients.async_client import AsyncClient as AsyncClient
from service.clients.async_client import Progress
from service.clients.errors import ClientError as ClientError
from service.clients.errors import ProblemError as ProblemError
from service.clients.errors import TransportError as TransportError
from service.clients.errors import UnusableTileError as UnusableTileError
from service.clients.options import ClassifyOptions, EmbedOptions, Settings
from service.clients.results import Answer, Classification, Embedding
from service.clients.tiles import Tile as Tile

T = TypeVar("T")


class Client:
    """Asks a service for embeddings and predictions; use it with `with`.

    `AsyncClient`, whose arguments these are, in a thread of its own: works in notebooks, too. `progress` is
    called in that thread.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", **settings: Unpack[Settings]) -> None:
        self._client = AsyncClient(url, **settings)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._process = os.getpid()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        self._portal, self._process = portal, os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._portal = None
        self._stack.__exit__(kind, error, trace)

    def model(self) -> dict[str, Any]:
        """See `AsyncClient.model`."""
        return self._call(self._client.model)

    def embed(
        self,
        tiles: Iterable[Any] | Any,
        *,
        progress: Progress | None = None,
        keep_going: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Answer[Embedding]:
        """See `AsyncClient.embed`."""
        asked = partial(self._client.embed, tiles, progress=progress, keep_going=keep_going, **options)
        return self._call(asked)

    def classify(
        self,
        tiles: Iterable[Any] | Any,
        *,
        progress: Progress | None = None,
        keep_going: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Answer[Classification]:
        """See `AsyncClient.classify`."""
        asked = partial(self._client.classify, tiles, progress=progress, keep_going=keep_going, **options)
        return self._call(asked)

    def _call(self, function: Callable[[], Awaitable[T]]) -> T:
        if self._portal is None:
            raise RuntimeError(
                "the client is not open; expected `with Client(...) as client:` around its use"
            )
        if self._process != os.getpid():  # a fork has no threads: it would wait for ever
            raise RuntimeError(
                "the client was opened before this process was forked; expected one opened in it, with "
                "`with Client(...) as client:`"
            )
        asked = self._portal.start_task_soon(function)
        try:
            return asked.result()
        except BaseException:  # Ctrl-C: nothing goes on behind the back of a notebook
            asked.cancel()
            raise
