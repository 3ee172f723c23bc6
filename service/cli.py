"""`landmoe`: serve tiles, look at bundles, make a tile to try with."""

from __future__ import annotations

import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from service.benchmarks.commands import bench
from service.clients import tile_commands
from service.early_stop import stop_at_once
from service.standard_files import open_closed

app = typer.Typer(name="landmoe", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

_BUNDLE_HELP = "A folder, or hf://owner/name, @revision after it; the one in the package if not given."


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"landmoe {metadata.version('landmoe')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it and end.")
    ] = False,
) -> None:
    del version


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
    open_closed()
    stop_at_once()
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
    """Verify a bundle and say what it is: the one that would be served, if none is named."""
    from model.bundle import BundleError, load
    from service import settings
    from service.bundle_info import as_dict, show

    try:
        loaded = load(bundle or settings.load().bundle)
    except (BundleError, settings.SettingsError) as error:
        _fail(error)
    try:
        if as_json:
            typer.echo(orjson.dumps(as_dict(loaded), option=orjson.OPT_INDENT_2).decode())
        else:
            show(loaded)
    except BundleError as error:  # a probe is read when it is asked for
        _fail(error)


@app.command("sample-tile")
def sample_tile(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="the GeoTIFF to write; - is standard output")
    ] = Path("tile.tif"),
    seed: Annotated[int, typer.Option(min=0, help="another seed, another landscape")] = 0,
) -> None:
    """Write a small synthetic georeferenced tile to try the service with."""
    from service import sample

    if str(output) == "-":
        if sys.stdout.isatty():
            _fail("a GeoTIFF is nothing to read on a terminal; expected -o FILE")
        typer.echo(sample.make(seed), nl=False)
        return
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


app.add_typer(bench, name="bench")
app.command()(tile_commands.embed)
app.command()(tile_commands.classify)


@app.command()
def stack(
    folder: Annotated[Path, typer.Argument(help="With the files of a Landsat Collection 2 Level 2 product.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The GeoTIFF to write.")] = Path("scene.tif"),
    qa_pixel: Annotated[
        bool, typer.Option("--qa-pixel", help="Put QA_PIXEL in, too, from which the service counts clouds.")
    ] = False,
) -> None:
    """Make one georeferenced GeoTIFF of the seven bands of a Landsat product, which has one file per band."""
    from service.rasters import delivery

    if str(output) == "-":  # of other commands standard output; a GeoTIFF is not written from front to back
        _fail("a stack cannot be written to standard output; expected -o FILE")
    try:
        acquired = delivery.stack(folder, output, qa_pixel=qa_pixel)
    except delivery.STACK_ERRORS as error:
        _fail(error)
    when = "its MTL, which tells when it was taken, is not there" if acquired is None else acquired.text
    bands = "SR_B1 to SR_B7 and QA_PIXEL" if qa_pixel else "SR_B1 to SR_B7"
    typer.echo(f"Wrote {output}: {bands}; {when}")


def _fail(error: Exception | str) -> NoReturn:
    typer.echo(f"landmoe: {error}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Console entry point."""
    app()


if __name__ == "__main__":
    main()
