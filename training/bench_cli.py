"""`landmoe-train bench`: how fast a step and the loader are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands import Size

bench = typer.Typer(no_args_is_help=True, help="Measure training on this machine.")

Json = Annotated[
    Path | None,
    typer.Option("--json", help="A file for the record. An interrupted run continues if called again."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Whether it runs; no figures to quote.")]


@bench.command("step")
def step(
    size: Annotated[Size, typer.Option(help="One of the published sizes.")] = Size.S,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per step.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Of each form; the median counts.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Time a training step with dense experts and with the published loop over experts."""
    import torch

    from model import measurement
    from model.config import SIZES
    from training import bench
    from training.commands import reported

    if threads:
        torch.set_num_threads(threads)
    with reported():
        record = bench.steps(
            SIZES[Size.XXS if quick else size],
            batch_size=2 if quick else batch_size,
            rounds=1 if quick else steps,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            partial=None if json is None else measurement.partial_of(json),
        )
        if json is not None:
            measurement.write(record, json)
    typer.echo(bench.show(record))


@bench.command("loader")
def loader(
    path: Annotated[Path, typer.Argument(help="A packed set.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per batch.")] = 128,
    batches: Annotated[int, typer.Option(min=1, help="In a round.")] = 100,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Time the loader alone; set it beside `bench step`, which it must exceed."""
    from model import measurement
    from training import bench
    from training.commands import reported

    with reported():
        record = bench.loader(
            path,
            batch_size=2 if quick else batch_size,
            batches=2 if quick else batches,
            rounds=1 if quick else rounds,
            partial=None if json is None else measurement.partial_of(json),
        )
        if json is not None:
            measurement.write(record, json)
    typer.echo(bench.show(record))


@bench.command("gpu")
def gpu(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the records; what is there is kept.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="The weights (.safetensors); seeded ones of size S by default.")
    ] = None,
    tiles: Annotated[
        Path | None, typer.Option(help="A packed set, or .npz with dn (N, 7, 40, 40); made up by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try whether it runs.")] = "cuda",
    only: Annotated[
        list[str] | None,
        typer.Option("--section", help="ceilings, parity, batch-64, service, compiled-64 ..."),
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="1, 8, 16 ... 2,048 if not given.")] = None,
    compiled: Annotated[
        list[int] | None, typer.Option(min=1, help="Batch sizes for torch.compile; 64 and 1,024.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of all measurements; medians and spread are kept.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of each measurement in a round.")] = 0.3,
    bundle: Annotated[Path | None, typer.Option(help="That the service is measured with.")] = None,
    quick: Quick = False,
) -> None:
    """Measure ceilings, parity and tiles/s on a GPU; called again, it goes on where it was cut off."""
    import torch

    from model import checkpoint as checkpoints
    from model.config import SIZES
    from training import bench_gpu, gpu_table, gpu_tiles

    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise typer.BadParameter(
            f"PyTorch has no device {device!r}; expected cuda, cuda:1 ... or cpu"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("PyTorch finds no CUDA device; --device cpu tries whether the bench runs")
    try:
        weights = checkpoints.load(checkpoint) if checkpoint else checkpoints.initialise(SIZES["S"], 0)
        plan = bench_gpu.Plan(
            weights,
            gpu_tiles.load(tiles, weights.config, weights.preprocessing),
            chosen,
            out,
            batches=batch or bench_gpu.BATCHES,
            compiled=bench_gpu.COMPILED if compiled is None else compiled,
            rounds=1 if quick else rounds,
            seconds=0.01 if quick else seconds,
            bundle=bundle,
            only=only or (),
            quick=quick,
        )
        files = bench_gpu.run(plan, lambda line: typer.echo(line, err=True))
        (out / "gpu.md").write_text(table := gpu_table.markdown(files))
    except (checkpoints.CheckpointError, gpu_tiles.TilesError, bench_gpu.SectionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(table)
