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

    if threads:
        torch.set_num_threads(threads)
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
