"""The windows of a scene are the pixels of its file, read in strips."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from model.windows import windows
from service.describe import PreparedTile
from service.files import File
from service.http.spool import Spool
from service.outcomes import Skipped
from service.parameters import RequestOptions, TileParameters
from service.rasters.geotiff import GeotiffError, Limits
from service.scene_grid import SceneGrid
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import BUNDLE
from tests.service.scene_requests import LONG, damaged

SPOOL = Spool(None, memory_bytes=8_000_000, max_bytes=1 << 30)


def test_large_scenes_are_looked_at_in_patches() -> None:
    """More than a megapixel, mostly empty: the patches, else the first strip with something in it."""
    for area in ((slice(0, 1100), slice(0, 1100)), (slice(1050, 1100), slice(0, 60))):
        pixels = np.zeros((7, 1100, 1100), np.uint16)
        pixels[(slice(None), *area)] = 9000
        scene = open_grid(geotiff(pixels, compress="deflate"))
        found = scene.take(10_000)
        scene.close()
        assert {tile.fields["units"] for _, tile in found if isinstance(tile, PreparedTile)} == {"dn"}


def open_grid(data: bytes, stride: int = 40) -> SceneGrid:
    options = RequestOptions(fit="grid", stride=stride)
    return SceneGrid(0, File(data, None), TileParameters(), options, BUNDLE, Limits(), SPOOL)


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_windows_before_the_damage_are_given(count: int) -> None:
    scene = open_grid(damaged(LONG, 2940))
    found: list[Any] = []
    while len(found) < 72 * scene.cols:
        found += scene.take(count)
    with pytest.raises(GeotiffError, match="cannot be read"):
        scene.take(count)
    scene.close()
    assert [grid for grid, _ in found] == list(windows(3000, 400, 40))[: 72 * scene.cols]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(40, 150),
    width=st.integers(40, 90),
    stride=st.integers(5, 120),
    take=st.integers(1, 50),
    block=st.sampled_from([0, 16, 48, 128]),
    seed=st.integers(0, 3),
)
def test_windows_are_the_pixels_of_the_file(
    height: int, width: int, stride: int, take: int, block: int, seed: int
) -> None:
    pixels = dn_pixels(height, width, seed=seed)
    pixels[:, np.random.default_rng(seed).random((height, width)) < 0.02] = 0
    tiled = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    scene = open_grid(geotiff(pixels, **tiled), stride)
    found: list[Any] = []
    while part := scene.take(take):
        assert len(part) <= take
        found += part
    scene.close()
    expected = list(windows(height, width, stride))
    assert [grid for grid, _ in found] == expected
    assert len(scene) == len(expected)
    for (_, tile), w in zip(found, expected, strict=True):
        row, col, rows, cols = w.window
        cut = pixels[:, row : row + rows, col : col + cols]
        if not (cut > 0).all(axis=0).any():
            assert tile == Skipped("empty")
        else:
            assert np.array_equal(tile.dn, cut)


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 x 800 px: 67 MB of pixels."""
    path = tmp_path_factory.mktemp("tall") / "tall.tif"
    strip = dn_pixels(400, 800)
    with rasterio.open(
        path, "w", driver="GTiff", count=7, height=6_000, width=800, dtype="uint16", tiled=True,
        compress="deflate", zlevel=1, crs="EPSG:32633",
        transform=rasterio.Affine(30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0),
    ) as file:  # fmt: skip
        for row in range(0, 6_000, 400):
            file.write(strip, window=rasterio.windows.Window(0, row, 800, 400))
    return path


def test_memory_does_not_grow_with_the_scene(tall: Path) -> None:
    def peak(rows: int) -> int:
        scene = SceneGrid(
            0,
            File(tall, None),
            TileParameters(),
            RequestOptions(fit="grid", stride=80),
            BUNDLE,
            Limits(),
            SPOOL,
        )
        tracemalloc.start()
        count = 0
        while count < rows * scene.cols and (part := scene.take(64)):
            count += len(part)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        scene.close()
        assert count >= min(rows * scene.cols, len(scene))
        return found

    short, long = peak(10), peak(75)
    assert long < 1.3 * short
    assert long < 40_000_000
