"""`landmoe`: serve tiles, look at bundles, make a tile to try with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from service.clients import tile_commands

app = typer.Typer(name="landmoe", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

_BUNDLE_HELP = "A folder, or hf://owner/name[@revision]; the one in the package if not given."


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(envvar="LANDMOE_HOST", help="0.0.0.0 listens on all addresses.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="LANDMOE_PORT", min=0, max=65535, help="0 is any free one.")
    ] = 8000,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, each with its own engine.")] = None,
    bundle: Annotated[str | None, typer.Option(help=_BUNDLE_HELP)] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve tiles over HTTP. LANDMOE_ environment variables set everything else."""
    from service import settings

    given = {"workers": workers, "bundle": bundle, "log_level": log_level}
    try:
        chosen = settings.load(**{name: value for name, value in given.items() if value is not None})
    except settings.SettingsError as error:
        _fail(error)
    from service import server

    try:
        server.serve(chosen, server.bind(host, port))
    except server.StartError as error:
        _fail(error)


@app.command()
def info(
    bundle: Annotated[str | None, typer.Argument(help=_BUNDLE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Verify a bundle and say what it is."""
    from model.bundle import BundleError, load
    from service.bundle_info import as_dict, show

    try:
        loaded = load(bundle)
        if as_json:
            typer.echo(orjson.dumps(as_dict(loaded), option=orjson.OPT_INDENT_2).decode())
        else:
            show(loaded)
    except BundleError as error:  # a probe is read when it is asked for
        _fail(error)


@app.command("sample-tile")
def sample_tile(
    output: Annotated[Path, typer.Option("-o", "--output", help="the GeoTIFF to write")] = Path("tile.tif"),
    seed: Annotated[int, typer.Option(min=0, help="another seed, another landscape")] = 0,
) -> None:
    """Write a small synthetic georeferenced tile to try the service with."""
    from service import sample

    try:
        output.write_bytes(sample.make(seed))
    except OSError as error:
        _fail(error)
    part = shlex.quote(f"tile=@{output}")
    typer.echo(
        f"Wrote {output}: seven bands, {sample.SIDE} x {sample.SIDE} px. "
        "It is SYNTHETIC: made up, no satellite saw it.\nTry, with the service running:\n"
        f"  curl -F {part} -F datetime={sample.DATETIME} http://127.0.0.1:8000/embed"
    )


bench = typer.Typer(no_args_is_help=True, help="Measure this machine; figures as JSON on request.")
app.add_typer(bench, name="bench")


@bench.command("service")
def bench_service(
    rounds: Annotated[int, typer.Option(min=1, help="Of all measurements; medians are shown.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement in a round.")] = 3.0,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="1, 8 and 64 if not given.")] = None,
    tiles: Annotated[int, typer.Option(min=1, max=64, help="In a request.")] = 1,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file for the JSON.")] = None,
) -> None:
    """Load a service of its own with closed loops; compare with the engine alone in the same rounds."""
    from model.bundle import BundleError
    from service import settings
    from service.benchmarks import service as bench_service
    from service.benchmarks import table as bench_table
    from service.benchmarks.load import LoadError
    from service.engine import EngineError

    try:
        figures = bench_service.run(
            settings.load(),
            rounds=rounds,
            seconds=seconds,
            connections=connections or bench_service.CONNECTIONS,
            tiles=tiles,
        )
    except (settings.SettingsError, BundleError, EngineError, LoadError) as error:
        _fail(error)
    bench_table.show_service(figures)
    if output is not None:
        output.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))


app.command()(tile_commands.embed)
app.command()(tile_commands.classify)


@app.command()
def stack(
    folder: Annotated[Path, typer.Argument(help="With the files of a Landsat Collection 2 Level 2 product.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The GeoTIFF to write.")] = Path("scene.tif"),
) -> None:
    """Make one georeferenced seven-band GeoTIFF of a Landsat product, which has one file per band."""
    from service.rasters import delivery

    try:
        acquired = delivery.stack(folder, output)
    except delivery.STACK_ERRORS as error:
        _fail(error)
    when = "its MTL, which tells when it was taken, is not there" if acquired is None else acquired.text
    typer.echo(f"Wrote {output}: SR_B1 to SR_B7; {when}")


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"landmoe: {error}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Console entry point."""
    app()
