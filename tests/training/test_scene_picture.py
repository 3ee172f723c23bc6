"""The picture of a scene beside its embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from model import checkpoint
from model.checkpoint import Checkpoint
from tests.training.scenery import PREPROCESSING, TINY
from training import scene_picture
from training.heldout import EvaluationError


@pytest.fixture(scope="module")
def found() -> Checkpoint:
    return checkpoint.initialise(TINY, 3, PREPROCESSING)


def scene(path: Path, pixels: NDArray[np.uint16]) -> Path:
    _, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=7, dtype="uint16", height=height, width=width, nodata=0,
        crs="EPSG:32633", transform=Affine(30, 0, 500_000, 0, -30, 5_300_000),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def halves(height: int, width: int) -> NDArray[np.uint16]:
    """Dark ground in the west, bright in the east."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(9000, 100, size=(7, height, width))
    pixels[:, :, width // 2 :] += 9000
    return pixels.astype(np.uint16)


def test_windows_lie_where_they_are_and_alike_ground_looks_alike(found: Checkpoint, tmp_path: Path) -> None:
    pixels = halves(160, 240)
    pixels[:, :80, :80] = 0  # no window there
    made = scene_picture.draw(found, scene(tmp_path / "scene.tif", pixels), "2020-08-02T18:31:00Z")
    left, right = made.axes
    assert left.get_xlim() == right.get_xlim() == (0, 240)
    assert left.get_ylim() == right.get_ylim() == (160, 0)
    (image,) = right.get_images()
    # Half a window less half a stride inside the scene.
    assert tuple(image.get_extent()) == (10, 230, 150, 10)
    colours = np.asarray(image.get_array())
    assert colours.shape == (7, 11, 3)
    assert (colours[:3, :3] == 1).all()  # rows and columns 0, 20 and 40: all fill
    west, east = colours[4:, :4].reshape(-1, 3), colours[4:, 7:].reshape(-1, 3)
    assert np.linalg.norm(west.mean(0) - east.mean(0)) > 10 * max(
        west.std(axis=0).max(), east.std(axis=0).max()
    )
    assert "68 windows" in right.get_title()


def test_directions_span_the_colours() -> None:
    rng = np.random.default_rng(0)
    colours = scene_picture.directions(rng.normal(size=(500, 24)).astype(np.float32))
    assert colours.shape == (500, 3)
    assert colours.min() == 0
    assert colours.max() == 1
    assert np.all((colours.std(axis=0) > 0.15) & (colours.std(axis=0) < 0.4))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((60, 60), "has 4 windows of 40 px every 20 px that hold something; expected 9 or more"),
        ((30, 30), "30"),
    ],
)
def test_a_scene_that_is_too_small_is_refused(
    found: Checkpoint, tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        scene_picture.draw(found, scene(tmp_path / "scene.tif", halves(*size)))


def test_a_time_that_is_none_is_refused(found: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"^--scene-time: datetime 'yesterday' cannot be read"):
        scene_picture.draw(found, scene(tmp_path / "scene.tif", halves(160, 240)), "yesterday")
