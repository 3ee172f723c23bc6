"""`landmoe embed` and `landmoe classify`: files in, one file with the results out."""

from __future__ import annotations

import asyncio
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.clients.async_client import AsyncClient
from service.clients.errors import AuthenticationError, ClientError, ProblemError, UnusableTileError
from service.clients.merge import Item, Piece, merger
from service.clients.tiles import Tile, TileRequest
from service.parameters import PER_TILE
from service.rasters import delivery

SUFFIXES = {
    ".parquet": "parquet",
    ".geoparquet": "parquet",
    ".npy": "npy",
    ".geojson": "geojson",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".tif": "geotiff-classes",
    ".tiff": "geotiff-classes",
}
IMAGES = (".tif", ".tiff")
_FILE = "file"  # column of a table of metadata


class InputError(ValueError):
    """The command line asks for what cannot be done; says what was expected."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the files: the content to write (None if all failed) and who failed, with why."""

    content: bytes | None
    failures: list[tuple[str, str]]
    tiles: int


def output_format(output: Path, given: str | None) -> str:
    """The service's format for a file: as given, else by its suffix; JSON on standard output.

    Raises:
        InputError: the suffix is unknown.
    """
    if given is not None:
        return given
    if str(output) == "-":
        return "json"
    found = SUFFIXES.get(output.suffix.lower())
    if found is None:
        raise InputError(
            f"{output}: the suffix says no format; expected one of {', '.join(SUFFIXES)}, or --format"
        )
    return found


def find_tiles(
    paths: Sequence[Path],
    table: Path | None,
    common: Mapping[str, str],
    tell: Callable[[str], None] = lambda _: None,
) -> list[Tile]:
    """The tiles that a command line names.

    Args:
        paths: GeoTIFFs, folders of them, and folders of Landsat deliveries.
        table: a CSV file with the column `file` (path or base name) and columns named as the per-tile
            parameters are.
        common: per-tile parameters that hold for all without one of their own.
        tell: given a line about files and rows of the table that do not belong together.

    Raises:
        InputError: no such path, a folder without tiles, a table that cannot be used or names none of them.
    """
    rows = {} if table is None else _read_table(table)
    found: list[Tile] = []
    without: list[str] = []
    used: set[str] = set()
    for path in _expanded(paths):
        name = next((name for name in (str(path), path.name) if name in rows), None)
        row = {} if name is None else rows[name]
        if name is None:
            without.append(path.name)
        else:
            used.add(name)
        known: dict[str, Any] = {"id": str(path), **common, **row}
        try:
            found.append(Tile(data=path, **known))
        except TypeError as error:
            raise InputError(str(error)) from error
    if table is not None:
        unused = [name for name in rows if name not in used]
        if not used:
            raise InputError(
                f"{table} names {_few(unused)}, and none of the files, {_few(without)}; expected their paths "
                f"or base names in the column {_FILE!r}"
            )
        if without:
            tell(f"{table} has no row for {_few(without)}")
        if unused:
            tell(f"{table} names {_few(unused)}, not among the files")
    return found


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


def write(content: bytes, output: Path) -> None:
    """Writes a file as a whole or not at all; `-` is standard output.

    Raises:
        OSError: it cannot be written.
    """
    if str(output) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():  # a device or a pipe is not replaced
        output.write_bytes(content)
        return
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(output)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


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
            items.append({"index": index, "id": tile.id or str(index), "error": problem})
        return items


def _as_problem(error: ClientError) -> dict[str, Any]:
    code = "unusable-tile" if isinstance(error, UnusableTileError) else "no-answer"
    return {"type": f"urn:landmoe:client:{code}", "title": type(error).__name__, "detail": str(error)}


def _reason(problem: Mapping[str, Any]) -> str:
    status = f"{problem['status']} " if "status" in problem else ""
    return f"{problem['detail']} ({status}{str(problem['type']).rpartition(':')[2]})"


def _few(names: Sequence[str]) -> str:
    """Some names, and how many there are in all."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} ... ({len(names)} in all)"


def _expanded(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if not path.is_dir() or delivery.is_delivery(path):
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES or delivery.is_delivery(p))
        if not inside:
            raise InputError(f"{path}: no GeoTIFF (.tif, .tiff) and no Landsat delivery in this folder")
        found += inside
    return found


def _read_table(table: Path) -> dict[str, dict[str, str]]:
    """Per-tile parameters by the file's path and by its base name."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = set(reader.fieldnames or ())
            if _FILE not in names or (unknown := sorted(names - PER_TILE - {_FILE})):
                raise InputError(
                    f"{table} has the columns {', '.join(sorted(names)) or 'none'}; expected {_FILE!r} and "
                    f"some of {', '.join(sorted(PER_TILE))}"
                    + (f"; unknown: {', '.join(unknown)}" if _FILE in names else "")
                )
            return {
                row[_FILE]: {name: text for name, text in row.items() if name != _FILE and text}
                for row in reader
                if row[_FILE]
            }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: {error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
