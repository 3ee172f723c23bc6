"""A command over tiles, from its options to its exit status: where the model runs, progress, what failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import stamina
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from stamina.instrumentation import RetryDetails

from model.bundle import BundleError
from service.clients import embed_files, output_file
from service.clients.async_client import AsyncClient
from service.clients.errors import ClientError, InputError, first_of
from service.clients.input_files import find_tiles
from service.clients.kept_answers import KeptAnswers
from service.clients.links import hosts
from service.clients.progress import Show
from service.clients.tiles import Tile
from service.engine import EngineError
from service.parameters import PER_TILE

_SHOWN_FAILURES = 50
_FETCH_HOSTS = "LANDMOE_FETCH_HOSTS"
_INTERRUPTED = 130  # what shells call it


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the command line asks for; see `service.clients.tile_commands`."""

    route: str
    files: list[str]
    output: Path
    output_format: str | None
    table: Path | None
    per_tile: dict[str, Any]
    options: dict[str, Any]
    parameters: list[str]
    url: str | None
    api_key: str | None
    bundle: str | None
    concurrency: int
    no_cache: bool
    quiet: bool


def carry_out(work: Work) -> None:
    """Does the work.

    Raises:
        typer.Exit: with status 1 if any tile failed, or nothing could be done; the reason is on standard
            error.
    """
    console = Console(stderr=True)
    problem: BaseException | None = None
    try:
        outcome = _answered(work, console)
    except* (InputError, ClientError, BundleError, EngineError, OSError) as errors:
        problem = first_of(errors)
    except* KeyboardInterrupt as errors:
        problem = first_of(errors)
    if isinstance(problem, KeyboardInterrupt):
        raise typer.Exit(_INTERRUPTED)
    if problem is not None:
        _tell(str(problem))
        raise typer.Exit(1)
    _tell_failures(outcome)
    if outcome.warned and not work.quiet:
        _tell(f"results with warnings: {_counts(outcome.warned)}; what they say stands in -o FILE.ndjson")
    if not work.quiet or outcome.failures:
        where = "to standard output" if str(work.output) == "-" else work.output
        written = f"wrote {where}" if outcome.written else "nothing was written"
        failed = f", {len(outcome.failures)} failed" if outcome.failures else ""
        _tell(f"{_tiles(outcome.tiles)}{_windows(outcome.summary)}{failed}; {written}")
    if outcome.failures:
        raise typer.Exit(1)


def _answered(work: Work, console: Console) -> embed_files.Outcome:
    """Asks, and writes the output. Answers are kept where there will be more to ask for."""
    wanted = output_file.output_format(work.output, work.output_format, work.route)
    output_file.check(work.output, wanted)
    with KeptAnswers(work.output, afresh=work.no_cache) as kept:
        try:
            outcome = asyncio.run(_run(work, wanted, kept, console))
            if outcome.written and not outcome.unanswered:
                kept.discard()
            return outcome
        finally:
            if kept.folder is not None and kept.folder.exists() and kept.tiles:
                again = "the same command" + (" without --no-cache" if work.no_cache else "")
                _tell(f"{_tiles(kept.tiles)} done, kept in {kept.folder}; {again} goes on from there")


async def _run(work: Work, wanted: str, kept: KeptAnswers, console: Console) -> embed_files.Outcome:
    per_tile, options = dict(work.per_tile), dict(work.options)
    for text in work.parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--parameter is {text!r}; expected NAME=VALUE")
        if name == "format":
            raise InputError(f"--parameter is {text!r}; expected --format, or a suffix of the output")
        (per_tile if name in PER_TILE else options)[name] = value

    tiles = find_tiles(work.files, work.table, per_tile, _tell)
    output_file.check_apart(work.output, [*work.files, *(tile.path for tile in tiles), work.table])
    with _progress(work, console, len(tiles)) as show:
        async with _client(work, tiles) as client:
            output = partial(output_file.written, work.output, kept.folder)
            return await embed_files.run(client, work.route, tiles, options, wanted, kept, show, output)


def _tell(text: str) -> None:
    typer.echo(f"landmoe: {text}", err=True)


def _tell_failures(outcome: embed_files.Outcome) -> None:
    """Of many, as many of each kind: one kind does not hide the others."""
    failures = outcome.failures
    kinds = Counter(code for _, _, code in failures)
    each = len(failures) if len(failures) <= _SHOWN_FAILURES else max(1, _SHOWN_FAILURES // len(kinds))
    shown: Counter[str] = Counter()
    for name, reason, code in failures:
        shown[code] += 1
        if shown[code] <= each:
            _tell(f"{name}: {reason}")
    if each < max(kinds.values(), default=0):
        _tell(f"failures: {_counts(dict(kinds.most_common()))}; {each} of each at most are shown")


def _counts(by_code: dict[str, int]) -> str:
    return ", ".join(f"{code} ({number:,})" for code, number in by_code.items())


def _tiles(count: int) -> str:
    return f"{count} tile{'s' if count != 1 else ''}"


def _windows(summary: dict[str, int]) -> str:
    """Of scenes: how many windows they have, and how many of these were left out."""
    left_out = ", ".join(
        f"{number:,} {name.removeprefix('skipped_')}"
        for name, number in summary.items()
        if number and name.startswith("skipped_")
    )
    text = f", {summary['windows']:,} windows" if summary else ""
    return text + (f" ({left_out}, left out)" if left_out else "")


def _client(work: Work, tiles: Sequence[Tile]) -> AsyncClient:
    headers = {"Cache-Control": "no-cache"} if work.no_cache else {}
    if work.url is not None:
        return AsyncClient(work.url, api_key=work.api_key, concurrency=work.concurrency, headers=headers)
    from service.clients.in_process import InProcessTransport
    from service.http.fetch import ProxyError, check_proxies
    from service.settings import SettingsError, load
    from service.telemetry import logs

    logs.configure("warning", "console")
    # An environment that is meant for a server sets keys; here nobody has to show one.
    given: dict[str, Any] = {"api_keys": None, "api_keys_file": None}
    if work.bundle is not None:
        given["bundle"] = work.bundle
    if links := [link for tile in tiles for link in tile.links]:  # who names them allows their hosts
        given["fetch_hosts"] = ",".join(filter(None, (os.environ.get(_FETCH_HOSTS), hosts(links))))
    try:
        settings = load(**given)
        check_proxies(settings.fetch_hosts)
        transport = InProcessTransport(settings)
    except (SettingsError, ProxyError) as error:
        raise InputError(str(error)) from error
    return AsyncClient(
        "http://in-process", transport=transport, concurrency=work.concurrency, headers=headers
    )


@contextmanager
def _progress(work: Work, console: Console, total: int) -> Iterator[Show]:
    hidden = work.quiet or not sys.stderr.isatty()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=hidden,
    ) as bar:
        task = bar.add_task("starting", total=total)

        def waiting(details: RetryDetails) -> None:
            text = f"{details.caused_by}; trying again in {details.wait_for:.0f} s"
            if hidden and not work.quiet:
                _tell(text)
            bar.update(task, description=text[:100])

        def show(done: float, windows: str) -> None:
            bar.update(task, completed=done, description=f"{work.route.strip('/')} {windows}".rstrip())

        stamina.instrumentation.set_on_retry_hooks([waiting])
        try:
            yield show
        finally:
            stamina.instrumentation.set_on_retry_hooks(None)
