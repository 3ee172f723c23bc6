"""`landmoe bench`: measure this machine; every command shows a table and, with --json, writes the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure this machine; figures as JSON on request.")

Rounds = Annotated[int, typer.Option(min=1, help="Of all measurements; medians and spread are shown.")]
Seconds = Annotated[float, typer.Option(min=0.05, help="Of each measurement in a round.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="One short round: whether it runs, no figures to quote.")
]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="A file for the record. An interrupted run continues if called again."),
]
Connections = Annotated[list[int] | None, typer.Option(min=1, help="1, 8 and 64 if not given.")]


@bench.command("engine")
def engine(
    rounds: Rounds = 3,
    seconds: Seconds = 0.7,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="1, 2, 4 ... 64 if not given.")] = None,
    baselines: Annotated[bool, typer.Option(help="The unfused networks too; they need torch.")] = True,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Tiles/s by batch size, against the machine's matrix rate and the unfused network."""
    from service import settings
    from service.benchmarks import engine as bench_engine

    def run(partial: Path | None) -> dict[str, Any]:
        return bench_engine.run(
            settings.load(),
            rounds=1 if quick else rounds,
            seconds=0.05 if quick else seconds,
            batches=batch or ((1, 4) if quick else bench_engine.BATCHES),
            with_baselines=baselines,
            partial=partial,
        )

    _measure(run, json)


@bench.command("decode")
def decode(rounds: Rounds = 5, seconds: Seconds = 0.3, quick: Quick = False, json: Json = None) -> None:
    """Microseconds from a tile's bytes to its pixels, CRS and centre, by reader and layout of the file."""
    from service.benchmarks import decode as bench_decode

    def run(partial: Path | None) -> dict[str, Any]:
        return bench_decode.run(
            rounds=1 if quick else rounds, seconds=0.05 if quick else seconds, partial=partial
        )

    _measure(run, json)


@bench.command("service")
def service(
    rounds: Rounds = 3,
    seconds: Seconds = 2.5,
    connections: Connections = None,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Closed loops against landmoe and other ways to serve the same network, beside the engine alone."""
    from service import settings
    from service.benchmarks import service as bench_service

    def run(partial: Path | None) -> dict[str, Any]:
        return bench_service.run(
            settings.load(),
            rounds=1 if quick else rounds,
            seconds=0.2 if quick else seconds,
            connections=connections or ((1, 4) if quick else bench_service.CONNECTIONS),
            files=16 if quick else bench_service.FILES,
            weigh_after=20 if quick else bench_service.REQUESTS_BEFORE_WEIGHING,
            partial=partial,
        )

    _measure(run, json)


@bench.command("growth")
def growth(
    rounds: Rounds = 2,
    seconds: Seconds = 2.0,
    stride: Annotated[int, typer.Option(min=1, help="Of the windows cut from scenes, in px.")] = 80,
    scene: Annotated[
        list[int] | None,
        typer.Option(min=40, help="Sides of scenes, px; 1000, 2000, 4000 and 8000 if not given."),
    ] = None,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """What more workers, processes, clients, waiting tiles and larger scenes do to speed and memory."""
    from service import settings
    from service.benchmarks import growth as bench_growth

    def run(partial: Path | None) -> dict[str, Any]:
        plan = bench_growth.QUICK if quick else bench_growth.FULL
        return bench_growth.run(
            settings.load(),
            rounds=1 if quick else rounds,
            seconds=0.1 if quick else seconds,
            plan=plan._replace(scenes=tuple(scene)) if scene else plan,
            stride=stride,
            partial=partial,
        )

    _measure(run, json)


def _measure(run: Callable[[Path | None], dict[str, Any]], json: Path | None) -> None:
    from model import measurement
    from service.benchmarks import table

    with _reported():
        record = run(None if json is None else measurement.partial_of(json))
        if json is not None:
            measurement.write(record, json)
    table.show(record)


@contextmanager
def _reported() -> Iterator[None]:
    """Turns errors that a person can act on into one line."""
    from model.bundle import BundleError
    from service.benchmarks.gemm_peak import MatrixRateError
    from service.benchmarks.load import LoadError
    from service.engine import EngineError
    from service.settings import SettingsError

    try:
        yield
    except (SettingsError, BundleError, EngineError, LoadError, MatrixRateError, OSError) as error:
        typer.echo(f"landmoe: {error}", err=True)
        raise typer.Exit(1) from error
