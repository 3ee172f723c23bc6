"""A scene beside the embeddings of its windows: what the network takes for alike, on the ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.decomposition import PCA

from model import metadata
from model.checkpoint import Checkpoint
from model.tiles import TILE_SIZE as SIZE
from training import geotiffs, heldout, stretch
from training.charts import figure
from training.embeddings import embed
from training.heldout import EvaluationError
from training.sources import Sample, SourceConfig

STRIDE = 20  # px between windows: half of a tile, so that what a window shows is finer than a tile
MIN_WINDOWS = 9  # fewer give three directions no meaning
COLOURS = (2.0, 98.0)  # percentiles of a direction that its colour spans
SIDE = 1000  # px of the scene's picture at most


def draw(found: Checkpoint, scene: Path, when: str = "", stride: int = STRIDE) -> Figure:
    """Left the scene in true colour, right its windows, the embeddings' three main directions as colours.

    Args:
        found: the checkpoint.
        scene: GeoTIFF of the seven bands, read as `pack` reads scenes.
        when: RFC 3339 or a date; '' = what the file's tags say.
        stride: px between windows.

    Raises:
        EvaluationError: the scene or its time cannot be read, or it has fewer than `MIN_WINDOWS` windows.
    """
    try:
        source = SourceConfig(name="scene", path=scene, kind="scene", stride=stride, when=when or None)
    except ValidationError as error:
        raise EvaluationError(f"--scene-time: {error.errors()[0]['ctx']['error']}") from error
    samples = _windows(source)
    shown, (height, width) = geotiffs.read_thinned(source, SIDE)
    colours = directions(_embedded(found, samples))
    rows, columns = (np.array([s.at[i] for s in samples if s.at]) // stride for i in (0, 1))
    grid = np.ones((rows.max() + 1, columns.max() + 1, 3))  # white where there is no window
    grid[rows, columns] = colours
    # A window stands for the ground around its centre, so the grid begins and ends some px inside the scene.
    start = (SIZE - stride) / 2
    extent = (start, start + grid.shape[1] * stride, start + grid.shape[0] * stride, start)
    made = figure(10, 10 * height / (2 * width) + 0.4)
    left, right = made.subplots(1, 2)
    left.imshow(stretch.rgb(shown, stretch.TRUE_COLOUR), extent=(0, width, height, 0))
    left.set_title("The scene in true colour", fontsize=10)
    right.imshow(grid, extent=extent, interpolation="nearest")
    right.set_title(
        f"Embeddings of its {len(samples):,} windows, three main directions as colours", fontsize=10
    )
    for axes in (left, right):
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    return made


def directions(embedded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Embeddings (N, D) → red, green and blue (N, 3) in [0, 1]: their three main directions.

    Dimensions are standardised first, and each direction is stretched by itself, so colours say who is like
    whom and nothing of how much.
    """
    x = embedded.astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    main: NDArray[np.float64] = PCA(3, random_state=0).fit_transform(x)
    low, high = np.percentile(main, COLOURS, axis=0)
    result: NDArray[np.float64] = np.clip((main - low) / np.maximum(high - low, 1e-9), 0, 1)
    return result


def _windows(source: SourceConfig) -> list[Sample]:
    samples: list[Sample] = []
    for found in geotiffs.read_scene(source.path, source):
        if not isinstance(found, Sample):
            raise EvaluationError(f"{found.path}: {found.reason}")
        samples.append(found)
    if len(samples) < MIN_WINDOWS:
        raise EvaluationError(
            f"{source.path} has {len(samples)} windows of {SIZE} px every {source.stride} px that hold "
            f"something; expected {MIN_WINDOWS} or more"
        )
    return samples


def _embedded(found: Checkpoint, samples: list[Sample]) -> NDArray[np.float32]:
    convention = found.preprocessing.hour_convention
    encoded = [metadata.encode(s.when, s.lat, s.lon, hour_convention=convention) for s in samples]
    tiles = heldout.of_scene(np.stack([s.dn for s in samples]), encoded, found.preprocessing)
    return embed(found.model.encoder, tiles.dn(), tiles["encodings"], ("mean",))["mean"]
