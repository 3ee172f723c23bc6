"""Scenes that were opened are closed where their request ends before it has them all."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from service import scenes
from service.files import File
from service.http.spool import Spool, SpoolError
from service.parameters import RequestOptions, TileParameters
from service.rasters.geotiff import GeotiffError, Limits
from service.scene_grid import SceneGrid
from service.scenes import open_scenes
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import BUNDLE


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{name}.tif" for name in ("first", "second")]
    for path in made:
        path.write_bytes(geotiff(dn_pixels(80, 80)))
    return made


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """It would close them, too, some time."""
    gc.disable()
    yield
    gc.enable()


def still_open(files: list[Path]) -> list[str]:
    return [file.path for file in psutil.Process().open_files() if Path(file.path) in files]


async def opened(files: list[Path], threads: ThreadPoolExecutor) -> list[SceneGrid | Exception]:
    return await open_scenes(
        [File(path, path.name) for path in files],
        [TileParameters()] * len(files),
        RequestOptions(fit="grid"),
        BUNDLE,
        Limits(),
        Spool(None, 8_000_000, 1 << 30),
        threads,
    )


def test_client_goes_while_the_second_scene_is_opened(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_is_open, gone = threading.Event(), threading.Event()

    class Slow(SceneGrid):
        def __init__(self, index: int, *rest: Any) -> None:
            if index == 1:
                first_is_open.set()
                gone.wait(10)
            super().__init__(index, *rest)

    async def client(threads: ThreadPoolExecutor) -> None:
        request = asyncio.create_task(opened(files, threads))
        await asyncio.to_thread(first_is_open.wait, 10)
        assert still_open(files) == [str(files[0])]
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gone.set()

    monkeypatch.setattr(scenes, "SceneGrid", Slow)
    with ThreadPoolExecutor(1) as threads:
        asyncio.run(client(threads))
    assert still_open(files) == []


def test_no_room_for_the_second_scene(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(SceneGrid):
        def __init__(self, index: int, *rest: Any) -> None:
            if index == 1:
                raise SpoolError("the disk is full")
            super().__init__(index, *rest)

    monkeypatch.setattr(scenes, "SceneGrid", Full)
    with ThreadPoolExecutor(1) as threads, pytest.raises(SpoolError):
        asyncio.run(opened(files, threads))
    assert still_open(files) == []


def test_each_scene_fails_alone(files: list[Path]) -> None:
    other = files[0].with_name("other.tif")
    other.write_bytes(b"no TIFF at all")
    with ThreadPoolExecutor(2) as threads:
        found = asyncio.run(opened([files[0], other, files[1]], threads))
    assert [type(grid) for grid in found] == [SceneGrid, GeotiffError, SceneGrid]
    assert sorted(still_open(files)) == sorted(map(str, files))
    for grid in found:
        if isinstance(grid, SceneGrid):
            grid.close()
    assert still_open(files) == []
