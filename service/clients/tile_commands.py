"""`landmoe embed` and `landmoe classify`: what they are called with. `embed_files` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Files = Annotated[
    list[str],
    typer.Argument(
        help="GeoTIFFs or their URLs, folders with them at any depth, folders of Landsat deliveries, or STAC "
        "Items (.json)."
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="The suffix says the format: .parquet, .npy, .geojson, .ndjson, .json, or .tif of a classified "
        "scene; - is standard output.",
    ),
]
Url = Annotated[
    str | None, typer.Option(help="Of a running service; without it the bundle runs in this process.")
]
ApiKey = Annotated[str | None, typer.Option(envvar="LANDMOE_API_KEY", help="Of the service.")]
BundlePath = Annotated[
    str | None, typer.Option(help="What runs without --url: a folder, or hf://owner/name.")
]
When = Annotated[
    str | None, typer.Option("--datetime", help="When the tiles were taken: RFC 3339, or a date.")
]
Lat = Annotated[float | None, typer.Option(help="WGS 84; the files' own place if not given.")]
Lon = Annotated[float | None, typer.Option(help="WGS 84; both or neither.")]
Units = Annotated[str | None, typer.Option(help="auto, dn, reflectance or reflectance_1e4.")]
Nodata = Annotated[
    str | None,
    typer.Option(
        help="Stored value that means nothing, where files do not declare it; none: they are wrong."
    ),
]
Bands = Annotated[str | None, typer.Option(help="Seven band numbers or names, in the order SR_B1 to SR_B7.")]
Table = Annotated[
    Path | None, typer.Option("--metadata", help="CSV with the column file and id, datetime, lat, lon ...")
]
Fit = Annotated[str | None, typer.Option(help="crop, resize, or grid for scenes.")]
Stride = Annotated[int | None, typer.Option(help="From one window of a grid to the next, px.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Any other parameter of the service's API."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="Of the output, where its suffix is not enough.")
]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Requests under way at once.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Compute everything afresh, also what an interrupted run has.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress on standard error.")]


def embed(
    files: Files,
    output: Output = Path("-"),
    url: Url = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, patch_mean, patch_mean_std or tokens.")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale to unit length.")] = False,
    when: When = None,
    lat: Lat = None,
    lon: Lon = None,
    units: Units = None,
    nodata: Nodata = None,
    bands: Bands = None,
    metadata: Table = None,
    fit: Fit = None,
    stride: Stride = None,
    parameter: Parameters = None,
    api_key: ApiKey = None,
    bundle: BundlePath = None,
    output_format: Format = None,
    concurrency: Concurrency = 4,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Embed GeoTIFFs, by a running service or in this process, and write one file.

    Files that fail are named on standard error; the others are written, and the exit status is 1. Answers are
    kept beside the output until it is written: interrupted, the same command goes on where it was.
    """
    from service.clients.tile_work import Work, carry_out

    carry_out(
        Work(
            route="/embed",
            files=files,
            output=output,
            output_format=output_format,
            table=metadata,
            per_tile=_given(datetime=when, lat=lat, lon=lon, units=units, nodata=nodata, bands=bands),
            options=_given(pooling=pooling, normalize=normalize or None, fit=fit, stride=stride),
            parameters=parameter or [],
            url=url,
            api_key=api_key,
            bundle=bundle,
            concurrency=concurrency,
            no_cache=no_cache,
            quiet=quiet,
        )
    )


def classify(
    files: Files,
    output: Output = Path("-"),
    url: Url = None,
    probe: Annotated[str | None, typer.Option(help="The bundle's first if not given.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Labels for each tile.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of labels that are selected.")] = None,
    when: When = None,
    lat: Lat = None,
    lon: Lon = None,
    units: Units = None,
    nodata: Nodata = None,
    bands: Bands = None,
    metadata: Table = None,
    fit: Fit = None,
    stride: Stride = None,
    parameter: Parameters = None,
    api_key: ApiKey = None,
    bundle: BundlePath = None,
    output_format: Format = None,
    concurrency: Concurrency = 4,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Classify GeoTIFFs with a probe of the bundle, by a running service or in this process."""
    from service.clients.tile_work import Work, carry_out

    carry_out(
        Work(
            route="/classify",
            files=files,
            output=output,
            output_format=output_format,
            table=metadata,
            per_tile=_given(datetime=when, lat=lat, lon=lon, units=units, nodata=nodata, bands=bands),
            options=_given(probe=probe, top_k=top_k, threshold=threshold, fit=fit, stride=stride),
            parameters=parameter or [],
            url=url,
            api_key=api_key,
            bundle=bundle,
            concurrency=concurrency,
            no_cache=no_cache,
            quiet=quiet,
        )
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
