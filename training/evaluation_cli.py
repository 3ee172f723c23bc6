"""The commands of `landmoe-train` that fit probes, evaluate and draw; `cli.py` lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.outputs import Pooling

NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT | BUNDLE",
        help="A landmoe checkpoint (.safetensors), or a bundle (folder, hf://owner/name), of which no "
        "reconstruction is measured.",
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A landmoe checkpoint (.safetensors).")
]
DataOption = Annotated[Path, typer.Option(help="A packed set, or a folder of .npz sets.")]
SplitOption = Annotated[list[str] | None, typer.Option(help="Of a packed set; test if not given.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="All cores if not given.")]


def evaluate(
    source: NetworkArgument,
    data: DataOption,
    output: Annotated[
        Path, typer.Option("-o", "--output", file_okay=False, help="Folder for the table and the plots.")
    ],
    split: SplitOption = None,
    scene: Annotated[Path | None, typer.Option(help="7-band GeoTIFF (DN) that --land-cover covers.")] = None,
    scene_time: Annotated[str, typer.Option(help="When it was taken: RFC 3339 or a date.")] = "",
    land_cover: Annotated[Path | None, typer.Option(help="Raster of class codes in its system.")] = None,
    land_cover_classes: Annotated[
        str, typer.Option(help="Codes and names.")
    ] = "1=built up,2=vegetation,3=bare earth,4=water",
    quick: Annotated[bool, typer.Option("--quick", help="Only see whether everything runs.")] = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure a network on held-out places beside baselines; write the table and the plots."""
    from training import charts, frozen, report
    from training.commands import limit_threads, reported
    from training.evaluate import Settings
    from training.evaluate import evaluate as measure
    from training.heldout import EvaluationError
    from training.landcover import parse_classes
    from training.scene import LandCover

    with reported():
        if (scene is None) != (land_cover is None):
            raise EvaluationError("--scene and --land-cover belong together; one of them is missing")
        limit_threads(threads)
        cover = None
        if scene is not None and land_cover is not None:
            cover = LandCover(scene, land_cover, parse_classes(land_cover_classes), scene_time)
        settings = Settings.quick() if quick else Settings()
        settings = settings.on(split or ["test"])
        result = measure(frozen.load(source), data, settings=settings, land_cover=cover)
        for path in (*report.write(result, output), *charts.draw(result, output)):
            typer.echo(path)


def probe(
    data: DataOption,
    bundle: Annotated[
        Path,
        typer.Option("-b", "--bundle", help="That gets the probes; where it is new, a copy of BUNDLE."),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHECKPOINT | BUNDLE]",
            help="What embeds: a checkpoint, or a bundle (folder, hf://owner/name). The bundle that gets the "
            "probes if not given, and the one in the package if that is new.",
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="The best by cross-validation if not given.")
    ] = None,
    split: SplitOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Fit linear probes on frozen embeddings of labelled tiles and put them into a bundle."""
    from training import frozen
    from training.commands import limit_threads, reported
    from training.probe import add_to_bundle, check_target, fit_all

    with reported():
        limit_threads(threads)
        found = frozen.load(str(bundle) if source is None and bundle.exists() else source)
        check_target(bundle, found)  # before the work
        fitted, left_out = fit_all(found, data, splits=tuple(split or ["test"]), pooling=pooling)
        written = add_to_bundle(bundle, found, fitted)
        for name, one in fitted.items():
            typer.echo(
                f"{name}: {one.task}, {len(one.labels)} classes, {one.pooling}, {one.metrics['summary']}"
            )
        for text in left_out:
            typer.echo(f"left out: {text}")
        typer.echo(f"{bundle}: digest {written.digest}")


def precisions(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    data: DataOption,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="File for the figures, JSON.")
    ] = None,
    split: SplitOption = None,
    kernels: Annotated[
        bool, typer.Option(help="bf16 in landmoe's kernels where this CPU runs them; else in OpenVINO.")
    ] = True,
    threads: ThreadsOption = None,
) -> None:
    """Say what precision=fast costs on this CPU: embeddings and probe scores in bf16 beside those in fp32."""
    import json

    from model import bundle as bundles
    from training.commands import limit_threads, reported
    from training.precisions import compare, lines

    with reported():
        limit_threads(threads)
        result = compare(bundles.load(bundle), data, tuple(split or ["test"]), kernels=kernels)
        typer.echo(f"bf16 by: {result['fast']}")
        for line in lines(result):
            typer.echo(line)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(result, indent=2) + "\n")


def describe(
    bundle: Annotated[Path, typer.Argument(help="The bundle that gets them.")],
    card: Annotated[Path | None, typer.Option(help="Model card, Markdown.")] = None,
    evaluation: Annotated[Path | None, typer.Option(help="evaluation.json of `evaluate`.")] = None,
) -> None:
    """Put a model card and the figures of an evaluation into a bundle; GET /model shows both."""
    from training.commands import reported
    from training.describe import describe as put

    with reported():
        written = put(bundle, card=card, evaluation=evaluation)
        typer.echo(f"{bundle}: digest {written.digest}")


def figures(
    source: CheckpointArgument,
    data: DataOption,
    output: Annotated[Path, typer.Option("-o", "--output", file_okay=False, help="Folder for the pictures.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the run, for its loss curves.")] = None,
    scene: Annotated[
        Path | None, typer.Option(help="7-band GeoTIFF, drawn beside the embeddings of its windows.")
    ] = None,
    scene_time: Annotated[
        str, typer.Option(help="When it was taken: RFC 3339 or a date; its tags if not given.")
    ] = "",
    split: SplitOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Draw reconstructions, routing, loss curves, maps of embeddings, a scene and the contact sheet."""
    from model import checkpoint
    from training.commands import limit_threads, reported
    from training.figures import draw

    with reported():
        limit_threads(threads)
        for path in draw(
            checkpoint.load(source),
            data,
            output,
            run=run,
            scene=scene,
            scene_time=scene_time,
            splits=tuple(split or ["test"]),
        ):
            typer.echo(path)
