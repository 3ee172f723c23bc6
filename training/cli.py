"""`landmoe-train`: every training command, each a thin call into the file that does the work."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="landmoe-train", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


class Size(StrEnum):
    """The published sizes of the network."""

    S = "S"
    XS = "XS"
    XXS = "XXS"


@app.command()
def init(
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write (.safetensors).")],
    size: Annotated[Size, typer.Option(help="One of the published sizes.")] = Size.S,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
) -> None:
    """Write a checkpoint with seeded, untrained weights."""
    from model import checkpoint
    from model.config import SIZES

    checkpoint.save(output, checkpoint.initialise(SIZES[size], seed))
    typer.echo(f"{output}: untrained, size {size}, seed {seed}")


@app.command()
def import_reference(
    source: Annotated[Path, typer.Argument(metavar="CHECKPOINT.pth", help="In the published layout.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write (.safetensors).")],
    size: Annotated[Size | None, typer.Option(help="Recognised from the weights if not given.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file with the architecture, for other sizes.")
    ] = None,
    published: Annotated[
        bool, typer.Option(help="These are the published weights: trained with the hour read from one digit.")
    ] = False,
) -> None:
    """Turn a published-layout .pth into our checkpoint, without running any code in it."""
    from model import checkpoint
    from model.config import SIZES, ConfigError
    from model.published import import_reference as read
    from model.published import read_config

    if size and config:
        raise typer.BadParameter("give --size or --config, not both")
    try:
        architecture = read_config(config) if config else SIZES[size] if size else None
        found = read(source, architecture, published=published)
    except (checkpoint.CheckpointError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    checkpoint.save(output, found)
    parameters = sum(p.numel() for p in found.model.parameters())
    typer.echo(f"{output}: {parameters:,} parameters, trained: {'yes' if found.info['trained'] else 'no'}")


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A landmoe checkpoint (.safetensors).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle to write.")],
    name: Annotated[
        str | None, typer.Option(help="The model's name; the checkpoint's own by default.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the weights; the checkpoint's by default.")] = None,
) -> None:
    """Fuse a checkpoint's encoder, check it against the network and write a servable bundle."""
    from model import checkpoint
    from model.bundle import BundleError
    from model.export import ExportError
    from model.export import export as write

    try:
        bundle = write(checkpoint.load(source), output, name=name, version=version)
    except (checkpoint.CheckpointError, ExportError, BundleError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    parity = bundle.parity["fp32"]
    typer.echo(f"{output}: {bundle.name} {bundle.version}, trained: {'yes' if bundle.trained else 'no'}")
    typer.echo(f"digest {bundle.digest}")
    typer.echo(
        f"fp32 against the unfused network, {parity['tiles']} tiles: largest difference "
        f"{parity['max_relative_error']:.1e} of the largest token (tolerance {parity['tolerance']:g}); "
        f"{parity['close_routing_tiles']} tiles with close routing, {parity['flipped_tiles']} flipped; "
        f"alone against in a batch: {parity['max_batch_difference']:g}"
    )


def main() -> None:
    """Console entry point."""
    app()


if __name__ == "__main__":
    main()
