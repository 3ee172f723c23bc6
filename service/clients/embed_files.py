"""`landmoe embed` and `landmoe classify`: files in, one file with the results out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from service.clients.async_client import AsyncClient
from service.clients.errors import (
    RETRIED,
    AuthenticationError,
    ClientError,
    InputError,
    ProblemError,
    TooLargeError,
    UnusableTileError,
)
from service.clients.kept_answers import KeptAnswers, answer_key
from service.clients.merge import Item, Piece, merger
from service.clients.progress import Show, WorkProgress
from service.clients.tile_requests import TileRequest
from service.clients.tiles import Tile, unicode


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the files.

    Attributes:
        content: to write; None if all failed.
        failures: who failed, and why.
        tiles: in all.
        unanswered: tiles of requests that the service could not answer; another time it may.
    """

    content: bytes | None
    failures: list[tuple[str, str]]
    tiles: int
    unanswered: int


async def run(
    client: AsyncClient,
    route: str,
    tiles: Sequence[Tile],
    options: Mapping[str, Any],
    wanted: str,
    kept: KeptAnswers,
    show: Show,
) -> Outcome:
    """Asks a service about tiles and puts its answers together.

    Args:
        client: entered.
        route: /embed or /classify.
        tiles: at least one.
        options: once for all requests.
        wanted: the service's name of the format.
        kept: answers of a run before, which are not asked for again; those of this one are added.
        show: told how far it is.

    Raises:
        ClientError: nothing could be asked at all: no connection, no right to.
        InputError: the format cannot hold what was asked for.
    """
    scenes = options.get("fit") == "grid"
    divided = await client.divided(tiles, alone=scenes)
    try:
        merge = merger(wanted, route, scenes=scenes)
        wire = merge.wire_format
    except ValueError as error:
        if len(tiles) > 1:
            raise InputError(str(error)) from error
        merge, wire = None, wanted
    model = await client.model()
    asked = {**options, "format": wire}
    slots, unanswered, progress = asyncio.Semaphore(client.concurrency), 0, WorkProgress(show)

    async def one(request: TileRequest) -> list[tuple[TileRequest, Piece | str]]:
        """What came, or the key under which it is kept; of each half, if all were too large together."""
        nonlocal unanswered
        key = answer_key(model, route, request, asked)
        found: Piece | str
        if key is not None and key in kept:
            found = key
        else:
            try:
                async with slots:
                    watched = progress.scene(client) if scenes else nullcontext()
                    async with watched as request_id:
                        piece, again = await _piece(client, route, request, asked, request_id)
            except TooLargeError as error:
                return [answer for half in request.halves(error) for answer in await one(half)]
            if key is not None and isinstance(piece, bytes):
                kept[key], found = piece, key
            else:
                found = piece
            unanswered += len(request.tiles) if again else 0
        if key is not None and kept.lasts(key):
            kept.tiles += len(request.tiles)
        progress.finished(len(request.tiles))
        return [(request, found)]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request)) for request in divided]
    answers = [answer for task in tasks for answer in task.result()]
    failures: list[Item] = []
    content: bytes | None = None
    for request, found in answers:
        piece = kept[found] if isinstance(found, str) else found
        if isinstance(piece, bytes):
            # One answer that is already in the format wanted is kept as it came.
            content = piece if len(answers) == 1 and wire == wanted else b""
        if merge is not None:
            failures += merge.add(piece, request.indices)
        elif isinstance(piece, list):
            failures += piece
    if content == b"" and merge is not None:
        content = merge.finish()
    told = [(tiles[item["index"]].label, _reason(item["error"])) for item in failures]
    return Outcome(content, told, len(tiles), unanswered)


async def _piece(
    client: AsyncClient, route: str, request: TileRequest, options: dict[str, Any], request_id: str | None
) -> tuple[Piece, bool]:
    """The body, or an item with the error for each tile; and whether it may go better another time.

    Raises:
        AuthenticationError: nothing else will be answered.
        TooLargeError: its halves may not be.
    """
    try:
        return (await client.raw(route, request, options, request_id)).content, False
    except AuthenticationError:
        raise
    except ClientError as error:
        if request.halves(error):
            raise
        body = error.body if isinstance(error, ProblemError) else _as_problem(error)
        own = {e["index"]: e for e in body.get("errors", [])}
        items = []
        for position, (index, tile) in enumerate(zip(request.indices, request.tiles, strict=True)):
            problem = {name: value for name, value in body.items() if name != "errors"} | own.get(
                position, {}
            )
            problem.pop("index", None)
            source = None if tile.is_delivery and tile.path is None else unicode(PurePath(tile.label).name)
            items.append(
                {"index": index, "id": tile.id or str(index), "source": tile.name or source, "error": problem}
            )
        return items, isinstance(error, RETRIED)


def _as_problem(error: ClientError) -> dict[str, Any]:
    code = "unusable-tile" if isinstance(error, UnusableTileError) else "no-answer"
    detail = unicode(str(error))  # may have the file's name
    return {"type": f"urn:landmoe:client:{code}", "title": type(error).__name__, "detail": detail}


def _reason(problem: Mapping[str, Any]) -> str:
    status = f"{problem['status']} " if "status" in problem else ""
    return f"{problem['detail']} ({status}{str(problem['type']).rpartition(':')[2]})"
