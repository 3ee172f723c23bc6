"""`landmoe embed` and `landmoe classify`: files in, one file with the results out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.clients.async_client import AsyncClient
from service.clients.errors import (
    AuthenticationError,
    ClientError,
    InputError,
    ProblemError,
    UnusableTileError,
)
from service.clients.merge import Item, Piece, merger
from service.clients.tiles import Tile, TileRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the files: the content to write (None if all failed) and who failed, with why."""

    content: bytes | None
    failures: list[tuple[str, str]]
    tiles: int


async def run(
    client: AsyncClient,
    route: str,
    tiles: Sequence[Tile],
    options: Mapping[str, Any],
    wanted: str,
    progress: Callable[[int, int], None],
) -> Outcome:
    """Asks a service about tiles and puts its answers together.

    Args:
        client: entered.
        route: /embed or /classify.
        tiles: at least one.
        options: once for all requests.
        wanted: the service's name of the format.
        progress: called with the tiles done and in all.

    Raises:
        ClientError: nothing could be asked at all: no connection, no right to.
        InputError: the format cannot hold what was asked for.
    """
    scenes = options.get("fit") == "grid"
    divided = await client.divided(tiles, alone=scenes)
    single = len(divided) == 1
    try:
        merge = merger(wanted, route, scenes=scenes)
        wire = merge.wire_format
    except ValueError as error:
        if not single or len(tiles) > 1:
            raise InputError(str(error)) from error
        merge, wire = None, wanted
    slots, done = asyncio.Semaphore(client.concurrency), 0

    async def one(request: TileRequest) -> Piece:
        nonlocal done
        async with slots:
            piece = await _piece(client, route, request, {**options, "format": wire})
        done += len(request.tiles)
        progress(done, len(tiles))
        return piece

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request)) for request in divided]
    failures: list[Item] = []
    succeeded = False
    content = b""
    for request, task in zip(divided, tasks, strict=True):
        piece = task.result()
        succeeded |= isinstance(piece, bytes)
        if merge is not None:
            failures += merge.add(piece, request.indices)
        elif isinstance(piece, bytes):
            content = piece
        else:
            failures += piece
    if succeeded and merge is not None:
        # One answer that is already in the format wanted is kept as it came.
        first = tasks[0].result()
        content = first if single and wire == wanted and isinstance(first, bytes) else merge.finish()
    told = [(str(tiles[item["index"]].path), _reason(item["error"])) for item in failures]
    return Outcome(content if succeeded else None, told, len(tiles))


async def _piece(
    client: AsyncClient, route: str, request: TileRequest, options: dict[str, Any]
) -> bytes | list[Item]:
    """The body of an answer; or, where it is refused, an item with the error for each tile."""
    try:
        return (await client.raw(route, request, options)).content
    except AuthenticationError:
        raise
    except ClientError as error:
        body = error.body if isinstance(error, ProblemError) else _as_problem(error)
        own = {e["index"]: e for e in body.get("errors", [])}
        items = []
        for position, (index, tile) in enumerate(zip(request.indices, request.tiles, strict=True)):
            problem = {name: value for name, value in body.items() if name != "errors"} | own.get(
                position, {}
            )
            problem.pop("index", None)
            source = None if tile.path is None else tile.path.name
            items.append(
                {"index": index, "id": tile.id or str(index), "source": tile.name or source, "error": problem}
            )
        return items


def _as_problem(error: ClientError) -> dict[str, Any]:
    code = "unusable-tile" if isinstance(error, UnusableTileError) else "no-answer"
    return {"type": f"urn:landmoe:client:{code}", "title": type(error).__name__, "detail": str(error)}


def _reason(problem: Mapping[str, Any]) -> str:
    status = f"{problem['status']} " if "status" in problem else ""
    return f"{problem['detail']} ({status}{str(problem['type']).rpartition(':')[2]})"
