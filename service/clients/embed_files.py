"""`landmoe embed` and `landmoe classify`: files in, one file with the results out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import IO, Any, cast

from service.clients.answers import counted, model_of
from service.clients.async_client import AsyncClient
from service.clients.errors import (
    RETRIED,
    AuthenticationError,
    ClientError,
    InputError,
    ModelChangedError,
    ProblemError,
    TooLargeError,
    TransportError,
    UnusableTileError,
)
from service.clients.kept_answers import KeptAnswers, answer_key
from service.clients.merge import Item, Piece, count, merger
from service.clients.progress import Show, WorkProgress
from service.clients.results import same_model
from service.clients.tile_requests import TileRequest
from service.clients.tiles import Tile, unicode

_OF_OPTIONS = ("bad-parameter", "unknown-parameter", "unknown-probe")
_SAID = "-said"  # behind the key of an answer: what its headers count


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the files.

    Attributes:
        written: whether the output was; not if all failed.
        failures: who failed, why, and the code of that.
        tiles: in all.
        unanswered: tiles of requests that the service could not answer; another time it may.
        summary: of the windows of scenes.
        warned: results by the codes of their warnings.
    """

    written: bool
    failures: list[tuple[str, str, str]]
    tiles: int
    unanswered: int
    summary: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)


async def run(
    client: AsyncClient,
    route: str,
    tiles: Sequence[Tile],
    options: Mapping[str, Any],
    wanted: str,
    kept: KeptAnswers,
    show: Show,
    output: Callable[[], AbstractContextManager[IO[bytes]]],
) -> Outcome:
    """Asks a service about tiles and writes its answers to one file.

    Args:
        client: entered.
        route: /embed or /classify.
        tiles: at least one.
        options: once for all requests.
        wanted: the service's name of the format.
        kept: answers of a run before, which are not asked for again; those of this one are added.
        show: told how far it is.
        output: opens the file to write; not called if all failed.

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

    async def one(request: TileRequest) -> list[tuple[TileRequest, Piece | str, str]]:
        """What came, or the key under which it is kept, and what its headers said.

        Of each half, if all were too large together.
        """
        nonlocal unanswered
        key = answer_key(model, route, request, asked)
        found: Piece | str
        if key is not None and key in kept:
            found, said = key, kept[key + _SAID].decode() if key + _SAID in kept else ""
        else:
            try:
                async with slots:
                    watched = progress.scene(client) if scenes else nullcontext()
                    async with watched as request_id:
                        piece, said, again = await _piece(client, route, request, asked, request_id)
            except TooLargeError as error:
                return [answer for half in request.halves(error) for answer in await one(half)]
            if key is not None and isinstance(piece, bytes):
                kept[key + _SAID] = said.encode()
                kept[key], found = piece, key
            else:
                found = piece
            unanswered += len(request.tiles) if again else 0
        if key is not None and kept.lasts(key):
            kept.tiles += len(request.tiles)
        progress.finished(len(request.tiles))
        return [(request, found, said)]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request)) for request in divided]
    answers = [answer for task in tasks for answer in task.result()]
    summary: dict[str, int] = {}
    warned: dict[str, int] = {}
    for _, _, said in answers:
        for total, text in zip((summary, warned), said.split("\n"), strict=False):
            count(total, counted(text))

    def piece_of(found: Piece | str) -> Piece:
        return kept[found] if isinstance(found, str) else found

    bodies = [found for _, found, _ in answers if not isinstance(found, list)]
    with output() if bodies else nullcontext() as file:
        if file is not None and len(answers) == 1 and wire == wanted:
            file.write(cast(bytes, piece_of(bodies[0])))  # already in the format wanted: as it came
        elif file is not None and merge is not None:
            merge.begin(file, (cast(bytes, piece_of(found)) for found in bodies))
        failures: list[Item] = []
        for request, found, _ in answers:
            piece = piece_of(found)
            if merge is not None:
                failures += merge.add(piece, request.indices)
            elif isinstance(piece, list):
                failures += piece
        if merge is not None:
            merge.finish()
    told = [(tiles[item["index"]].label, *_reason(item["error"])) for item in failures]
    return Outcome(bool(bodies), told, len(tiles), unanswered, summary, warned)


async def _piece(
    client: AsyncClient, route: str, request: TileRequest, options: dict[str, Any], request_id: str | None
) -> tuple[Piece, str, bool]:
    """The body, or an item with the error for each tile; counts of its headers; whether to try again.

    Raises:
        AuthenticationError: nothing else will be answered.
        ProblemError: nor if an option cannot be used.
        TransportError: nor if the service has gone; each request would wait for it as long as this one did.
        TooLargeError: its halves may not be.
        ModelChangedError: it is of another model than that of GET /model.
    """
    try:
        response = await client.raw(route, request, options, request_id)
    except AuthenticationError:
        raise
    except ClientError as error:
        if request.halves(error) or _concerns_all(error, request):
            raise
        if isinstance(error, TransportError) and not await client.is_there():
            raise
        body = error.body if isinstance(error, ProblemError) else _as_problem(error)
        own = {e["index"]: e for e in body.get("errors", [])}
        items = []
        for position, (index, tile) in enumerate(zip(request.indices, request.tiles, strict=True)):
            problem = {name: value for name, value in body.items() if name != "errors"} | own.get(
                position, {}
            )
            problem.pop("index", None)
            items.append(
                {"index": index, "id": tile.id or str(index), "source": tile.source, "error": problem}
            )
        return items, "", isinstance(error, RETRIED)
    if (computed := model_of(response)) and not same_model(computed, model := await client.model()):
        raise ModelChangedError(model, computed)
    said = "\n".join(response.headers.get(name, "") for name in ("x-summary", "x-warnings"))
    return response.content, said, False


def _concerns_all(error: ClientError, request: TileRequest) -> bool:
    """Whether it is what is said once for all requests, which no file of an archive has to be sent for.

    What a tile fails for stands in `errors`; but a delivery is a request, and may have parts that do not fit.
    """
    return (
        isinstance(error, ProblemError)
        and not error.errors
        and error.code in _OF_OPTIONS
        and not any(tile.is_delivery for tile in request.tiles)
    )


def _as_problem(error: ClientError) -> dict[str, Any]:
    code = "unusable-tile" if isinstance(error, UnusableTileError) else "no-answer"
    detail = unicode(str(error))  # may have the file's name
    return {"type": f"urn:landmoe:client:{code}", "title": type(error).__name__, "detail": detail}


def _reason(problem: Mapping[str, Any]) -> tuple[str, str]:
    """What happened, and its code."""
    status, code = f"{problem['status']} " if "status" in problem else "", _code(problem)
    return f"{problem['detail']} ({status}{code})", code


def _code(problem: Mapping[str, Any]) -> str:
    return str(problem["type"]).rpartition(":")[2]
