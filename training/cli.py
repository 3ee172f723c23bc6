"""`landmoe-train`: every training command, each a thin call into the file that does the work."""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from model.outputs import Pooling
from training import bench_cli, evaluation_cli
from training.commands import Size

app = typer.Typer(name="landmoe-train", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


class Precision(StrEnum):
    """Numbers that an exported encoder computes in."""

    FP32 = "fp32"
    FP16 = "fp16"


@app.command()
def init(
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write (.safetensors).")],
    size: Annotated[Size, typer.Option(help="One of the published sizes.")] = Size.S,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
) -> None:
    """Write a checkpoint with seeded, untrained weights."""
    from model import checkpoint
    from model.config import SIZES
    from training.commands import reported

    with reported():
        checkpoint.save(output, checkpoint.initialise(SIZES[size], seed))
    typer.echo(f"{output}: untrained, size {size}, seed {seed}")


@app.command()
def import_reference(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT.pth",
            help="In the published layout; hf://owner/name/file, @revision after it if wanted, for a hub's.",
        ),
    ],
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
    from model import checkpoint, hub
    from model.config import SIZES, ConfigError
    from model.published import import_reference as read
    from model.published import read_config

    if size and config:
        raise typer.BadParameter("give --size or --config, not both")
    try:
        architecture = read_config(config) if config else SIZES[size] if size else None
        path = hub.fetch_file(source) if hub.is_address(source) else Path(source)
        found = read(path, architecture, published=published)
        checkpoint.save(output, found)
    except (checkpoint.CheckpointError, ConfigError, hub.HubError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    parameters = sum(p.numel() for p in found.model.parameters())
    typer.echo(f"{output}: {parameters:,} parameters, trained: {'yes' if found.info['trained'] else 'no'}")


@app.command()
def pack(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the packed set.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Folders of GeoTIFFs, scenes, .npz sets; or --config."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with sources and splits.")] = None,
    root: Annotated[Path, typer.Option(help="Folder that paths in the file are relative to.")] = Path(),
    stride: Annotated[int | None, typer.Option(min=1, help="px between windows; default 40.")] = None,
    units: Annotated[str | None, typer.Option(help="dn, reflectance, reflectance_1e4; default auto.")] = None,
    bands: Annotated[str | None, typer.Option(help="Seven indices or names, SR_B1 to SR_B7.")] = None,
    listing: Annotated[
        Path | None,
        typer.Option("--list", help="CSV of what to take: id, and if known datetime, lat, lon, labels."),
    ] = None,
    when: Annotated[str | None, typer.Option(help="Acquisition time of all, RFC 3339 or a date.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Pack GeoTIFFs and .npz sets into memory-mapped shards, split by place.

    Run again it only does what is missing or has changed. Files that give no tile are listed with the reason.
    """
    from training import detect, settings
    from training import pack as packing
    from training.commands import reported

    if (config is None) == (not paths):
        raise typer.BadParameter("give either paths or --config")
    listed = listing.resolve() if listing else None
    said = {"listing": listed, "stride": stride, "units": units, "bands": bands, "when": when}
    options = {name: value for name, value in said.items() if value is not None}
    if config and options:
        raise typer.BadParameter(f"{', '.join(options)}: with --config, each source says this itself")
    with reported():
        if config:
            chosen = settings.load(packing.PackConfig, config)
        else:
            found = [source.model_dump() | options for source in detect.detect_all(paths or [])]
            chosen = settings.checked(packing.PackConfig, {"sources": found})
        typer.echo(packing.report(packing.pack(chosen, root, out, workers=workers)))


@app.command()
def pretrain(
    config: Annotated[Path, typer.Option(help="YAML file, or published, default, default_decoder, smoke.")],
    run_dir: Annotated[Path, typer.Option("-o", "--run-dir", help="A run found there is resumed.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Changes, such as data.path=packed steps=100."),
    ] = None,
) -> None:
    """Pretrain the masked autoencoder; stopped and started again it goes on where it was."""
    from training.commands import reported
    from training.pretrain import Pretraining
    from training.recipe import PretrainConfig
    from training.settings import load

    with reported():
        run = Pretraining(load(PretrainConfig, config, overrides or []), run_dir)
        run.run()
        if run.stopped_by:
            typer.echo(
                f"stopped by {run.stopped_by} at step {run.step}, saved in {run_dir}; run again to resume"
            )
            raise typer.Exit(128 + getattr(signal, run.stopped_by, signal.SIGTERM))


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
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="fp32 is always written; fp16 beside it, for GPUs, adds half its size."),
    ] = None,
) -> None:
    """Fuse a checkpoint's encoder, check it against the network and write a servable bundle."""
    from model import checkpoint
    from model.bundle import BundleError
    from model.export import ExportError
    from model.export import export as write

    try:
        bundle = write(
            checkpoint.load(source), output, name=name, version=version, precisions=precision or ()
        )
    except (checkpoint.CheckpointError, ExportError, BundleError, OSError) as error:
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
    for other in sorted(bundle.parity.keys() - {"fp32"}):
        found = bundle.parity[other]
        cosines = ", ".join(f"{name} {value:.6f}" for name, value in found["least_cosine"].items())
        typer.echo(
            f"{other} against fp32, {found['tiles']} tiles: least cosine {cosines}; same experts in "
            f"{found['routing_agreement']:.3%} of routing decisions; "
            f"alone against in a batch: {found['max_batch_difference']:g}"
        )


@app.command()
def import_probe(
    source: Annotated[
        Path, typer.Argument(metavar="FILE.joblib", help="A published probe, or your own of scikit-learn.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The probe to write (.safetensors), or a bundle to put it in; a new one is a copy of "
            "that in the package.",
        ),
    ],
    labels: Annotated[
        str | None, typer.Option(help="ben19, eurosat10, or a file with the name of a class on each line.")
    ] = None,
    description: Annotated[
        Path | None, typer.Option("--json", help="Its JSON file; the one beside it by default.")
    ] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="The embedding that it reads; told from the file by default.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name in the bundle; the file's name by default.")
    ] = None,
) -> None:
    """Convert a published or own probe (joblib), without running any code in it."""
    from model import probe as probes
    from model.bundle import BundleError
    from model.bundle_writer import add_probe
    from training.published_probe import ImportProbeError, read_labels
    from training.published_probe import import_probe as convert

    alone = output.suffix == ".safetensors" and not output.is_dir()
    if output.is_file() and not alone:
        raise typer.BadParameter(f"-o {output} is neither a .safetensors file nor the folder of a bundle")
    new = not output.exists()
    try:
        found = convert(source, description, pooling, read_labels(labels) if labels else None)
        if alone:
            probes.save_probe(output, found.probe)
        else:
            add_probe(output, name or source.stem, found.probe)
    except (ImportProbeError, BundleError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    copied = [f"{output} is new: a copy of the packaged bundle with this probe"] if new and not alone else []
    for note in (*found.notes, *copied):
        typer.echo(f"note: {note}", err=True)
    probe = found.probe
    typer.echo(f"{output}: {probe.task}, {len(probe.labels)} classes, {probe.dim} values of {probe.pooling}")


app.add_typer(bench_cli.bench, name="bench")
for command in (
    evaluation_cli.probe,
    evaluation_cli.evaluate,
    evaluation_cli.precisions,
    evaluation_cli.figures,
    evaluation_cli.describe,
):
    app.command()(command)


def main() -> None:
    """Console entry point."""
    app()


if __name__ == "__main__":
    main()
