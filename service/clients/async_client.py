"""The client for asyncio: divides many tiles into requests and waits as the service asks when it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from service.clients.answers import Reader, of_classify, of_embed
from service.clients.connection import Connection
from service.clients.errors import ClientError, ProblemError, first_of
from service.clients.given_tiles import as_tiles, check_common
from service.clients.options import ClassifyOptions, EmbedOptions
from service.clients.results import (
    Answer,
    Classification,
    Embedding,
    Failure,
    Result,
    failures,
    merged,
    same_model,
)
from service.clients.tile_requests import TileRequest, requests
from service.clients.tiles import Tile, as_text

Progress = Callable[[int, int], None]  # tiles done, tiles in all
R = TypeVar("R", bound=Result)

TILES_PER_REQUEST = 32  # one full batch of the engine; more only delays the first answer
MAX_REQUEST_BYTES = 8_000_000  # the service keeps bodies up to this size in memory
CONCURRENCY = 4  # requests under way: keeps the engine busy while others are decoded and answered


class AsyncClient:
    """Asks a service for embeddings and predictions; use it with `async with`.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        api_key: sent as X-API-Key.
        timeout_s: the longest silence of the service during a request.
        max_wait_s: how long a request is tried again while the service is busy or away; 0 = never. One that
            has not answered at all is given up after 15 s.
        concurrency: requests under way at once.
        tiles_per_request: fewer where the service allows fewer.
        headers: sent with every request; `{"Cache-Control": "no-cache"}` has everything computed afresh.
        transport: of httpx, instead of a connection to `url`.

    Raises:
        TransportError: the URL, a header or the key cannot be used.
        ValueError: `concurrency` or `tiles_per_request` below 1.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 300,
        max_wait_s: float = 300,
        concurrency: int = CONCURRENCY,
        tiles_per_request: int = TILES_PER_REQUEST,
        headers: dict[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if concurrency < 1 or tiles_per_request < 1:
            raise ValueError(
                f"concurrency is {concurrency}, tiles_per_request {tiles_per_request}; expected 1 or more"
            )
        self.concurrency = concurrency
        self._tiles_per_request = tiles_per_request
        self._connection = Connection(
            url,
            api_key=api_key,
            timeout_s=timeout_s,
            max_wait_s=max_wait_s,
            concurrency=concurrency,
            headers=headers or {},
            transport=transport,
        )
        self._model: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def model(self) -> dict[str, Any]:
        """What is served: GET /model, asked once, and again when answers come from another model.

        Raises:
            ClientError: the service did not answer, or with a problem.
        """
        if self._model is None:
            self._model = (await self._connection.send("GET", "/model")).json()
        return self._model

    async def embed(
        self,
        tiles: Iterable[Any] | Any,
        *,
        progress: Progress | None = None,
        keep_going: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Answer[Embedding]:
        """Embeds tiles.

        Args:
            tiles: one or many: paths (of files or Landsat deliveries), bytes, arrays (7, h, w) or `Tile`s.
            progress: called with the tiles done and in all, whenever a request is answered.
            keep_going: a request that fails for good is a failure of each of its tiles; else it is raised.
            options: as in the service's API: pooling, normalize, fit, stride; and datetime, lat, lon, units
                ... where one holds for all tiles.

        Returns:
            A result or a failure for each tile or window, in their order.

        Raises:
            ProblemError: the service refused a request as a whole.
            TransportError: it did not answer.
            ModelChangedError: its answers come from two models.
            UnusableTileError: something given is no tile.
        """
        return await self._ask("/embed", tiles, {**options}, of_embed, progress, keep_going)

    async def classify(
        self,
        tiles: Iterable[Any] | Any,
        *,
        progress: Progress | None = None,
        keep_going: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Answer[Classification]:
        """Predicts labels; `options` are probe, top_k, threshold ...; the rest is as in `embed`."""
        return await self._ask("/classify", tiles, {**options}, of_classify, progress, keep_going)

    async def raw(
        self, route: str, request: TileRequest, options: dict[str, Any], request_id: str | None = None
    ) -> httpx.Response:
        """The service's own answer to one request, in the `format` that the options ask for.

        Raises:
            ClientError: as `embed`.
        """
        fields = request.fields({name: as_text(v) for name, v in options.items() if v is not None})
        headers = {"X-Request-ID": request_id} if request_id else {}
        return await self._connection.send("POST", route, request, fields, headers)

    async def is_there(self) -> bool:
        """Whether the service answers at all, whatever it is."""
        try:
            await self._connection.get("/model")
        except httpx.HTTPError:
            return False
        return True

    async def windows(self, request_id: str) -> tuple[int, int] | None:
        """Of a request with scenes that is under way: windows that are done, and all. None if unknown."""
        try:
            response = await self._connection.get("/progress", request_id=request_id)
            body = response.json() if response.status_code == httpx.codes.OK else {}
            return int(body["done"]), int(body["windows"])
        except (httpx.HTTPError, LookupError, TypeError, ValueError):
            return None

    async def divided(self, tiles: Sequence[Tile], *, alone: bool) -> list[TileRequest]:
        """The requests that bring tiles, within the limits of the service."""
        limits = (await self.model())["limits"]
        return list(
            requests(
                tiles,
                max_tiles=min(self._tiles_per_request, limits["max_tiles"]),
                max_bytes=min(MAX_REQUEST_BYTES, limits["max_upload_bytes"]),
                alone=alone,
            )
        )

    async def _ask(
        self,
        route: str,
        tiles: Iterable[Any] | Any,
        options: dict[str, Any],
        reader: Reader[R],
        progress: Progress | None,
        keep_going: bool,
    ) -> Answer[R]:
        given = as_tiles(tiles)
        check_common(options)
        if not keep_going:
            for tile in given:
                _ = tile.size  # before anything is sent
        divided = await self.divided(given, alone=options.get("fit") == "grid")
        slots = asyncio.Semaphore(self.concurrency)
        done = 0

        async def one(request: TileRequest) -> list[Answer[R] | list[Failure]]:
            nonlocal done
            async with slots:
                answers = await self._one(route, request, options, reader, keep_going)
            done += len(request.tiles)
            if progress is not None:
                progress(done, len(given))
            return answers

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(request)) for request in divided]
        except* Exception as errors:  # also of what `progress` does
            raise first_of(errors) from None
        answers = [answer for task in tasks for answer in task.result()]
        said = next((a.model for a in answers if isinstance(a, Answer) and a.model), None)
        if said is not None and not same_model(said, await self.model()):
            self._model = None  # the service has another one since it was asked
        return merged(answers, await self.model())

    async def _one(
        self,
        route: str,
        request: TileRequest,
        options: dict[str, Any],
        reader: Reader[R],
        keep_going: bool,
    ) -> list[Answer[R] | list[Failure]]:
        tiles = [(i, t.id or str(i), t.source) for i, t in zip(request.indices, request.tiles, strict=True)]
        wire = {"format": "ndjson" if options.get("fit") == "grid" else reader.wire_format}
        try:
            return [reader.read(await self.raw(route, request, options | wire), request.indices)]
        except ClientError as error:
            if halves := request.halves(error):
                answers = []
                for half in halves:
                    answers += await self._one(route, half, options, reader, keep_going)
                return answers
            # Every tile failed for a reason of its own, which is no failure of the request.
            if keep_going or (isinstance(error, ProblemError) and error.errors):
                return [failures(error, tiles)]
            raise
