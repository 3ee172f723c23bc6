"""Reading the windows of a scene: the file's pixels, each block once, in bounded pieces."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bands import BANDS as NAMES
from model.bands import DN_OFFSET, DN_SCALE
from model.units import Units
from model.windows import windows
from service.files import Delivery, File
from service.http.spool import Spool, SpoolError
from service.rasters import strip
from service.rasters.georeference import PixelWindow
from service.rasters.geotiff import GeotiffError, Limits
from service.rasters.open_raster import OpenRaster
from service.rasters.strip import Strip, steps
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries

BANDS = (1, 2, 3, 4, 5, 6, 7)
DN = Units("dn", (DN_SCALE,) * 7, (DN_OFFSET,) * 7)


class Watched(OpenRaster):
    """Remembers what was read."""

    def __init__(self, file: File) -> None:
        super().__init__(file, Limits(), whole=False)
        self.windows: list[PixelWindow] = []

    def read(self, window: PixelWindow | None = None, bands: tuple[int, ...] | None = None) -> Any:
        assert window is not None
        self.windows.append(window)
        return super().read(window, bands)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(40, 260),
    width=st.integers(40, 150),
    stride=st.integers(5, 200),
    block=st.sampled_from([0, 16, 32, 48]),
    rows_of_strips=st.integers(1, 100),
    piece=st.sampled_from([1, 20_000, 1 << 20]),
    interleave=st.sampled_from(["pixel", "band"]),
    on_disk=st.booleans(),
)
def test_windows_are_the_file_s_pixels_and_no_block_is_read_twice(
    height: int,
    width: int,
    stride: int,
    block: int,
    rows_of_strips: int,
    piece: int,
    interleave: str,
    on_disk: bool,
) -> None:
    pixels = dn_pixels(height, width)
    pixels[:, np.random.default_rng(0).random((height, width)) < 0.1] = 0
    blocks: dict[str, Any] = (
        {"tiled": True, "blockxsize": block, "blockysize": block} if block else {"blockysize": rows_of_strips}
    )
    data = File(geotiff(pixels, interleave=interleave, **blocks), None)
    raster = Watched(data)
    with pytest.MonkeyPatch.context() as patch, raster:
        patch.setattr(strip, "_PIECE_VALUES", piece)
        spool = Spool(None, memory_bytes=0 if on_disk else 1 << 30, max_bytes=1 << 30)
        rows = strip_of(raster, spool)
        for _, _, window in windows(height, width, stride):
            dn, valid, flags = rows.of(window)
            row, col = window.row_off, window.col_off
            cut = pixels[:, row : row + 40, col : col + 40]
            assert flags is None
            np.testing.assert_array_equal(valid, (cut > 0).all(axis=0))
            np.testing.assert_array_equal(dn, cut)
        read = np.zeros((height, width), int)
        for row, col, down, across in raster.windows:
            read[row : row + down, col : col + across] += 1
            assert row % raster.block_rows == col % raster.block_cols == 0
            one_block = down <= raster.block_rows and across <= raster.block_cols
            assert one_block or down * across * 7 <= piece
        assert read.max() == 1
        assert (spool.used > 0) == on_disk
        rows.close()
        assert spool.used == 0


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_flags_are_those_of_the_window(memory_bytes: int) -> None:
    pixels = dn_pixels(150, 90)
    flags = np.arange(1, 1 + 150 * 90).reshape(150, 90).astype(np.uint16)
    files = deliveries.parts(pixels, flags=flags, tiled=True, blockxsize=32, blockysize=32)
    bands = tuple(File(files[name][1], None) for name in NAMES)
    delivery = Delivery(bands, File(files["QA_PIXEL"][1], None), None, None)
    with OpenRaster(delivery, Limits(), whole=False) as raster:
        spool = Spool(None, memory_bytes=memory_bytes, max_bytes=1 << 30)
        rows = strip_of(raster, spool)
        for _, _, window in windows(150, 90, 25):
            row, col = window.row_off, window.col_off
            dn, _, found = rows.of(window)
            np.testing.assert_array_equal(dn, pixels[:, row : row + 40, col : col + 40])
            assert found is not None
            np.testing.assert_array_equal(found, flags[row : row + 40, col : col + 40])
        rows.close()


def test_a_wider_scene_takes_only_the_rows_of_its_windows_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path, memory_bytes=1 << 20, max_bytes=1 << 30)

    def peak(width: int) -> int:
        path = tmp_path / f"{width}.tif"
        creation: dict[str, Any] = {
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
            "compress": "deflate",
            "count": 7,
        }
        place = rasterio.Affine(30.0, 0.0, 386_355.0, 0.0, -30.0, 5_293_245.0)
        with rasterio.open(
            path, "w", driver="GTiff", height=200, width=width, dtype="uint16", transform=place, **creation
        ) as file:
            file.write(np.full((7, 200, width), 9000, np.uint16))
        with OpenRaster(File(path, None), Limits(), whole=False) as raster:
            tracemalloc.start()
            rows = strip_of(raster, spool)
            for _, _, window in windows(200, width, 80):
                rows.of(window)
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            rows.close()
        return found

    narrow, wide = peak(8_000), peak(16_000)
    # 40 rows of uint16 in seven bands; all else is on disk.
    assert wide - narrow < 1.1 * 8_000 * 40 * 14
    assert spool.used == 0


def test_blocks_that_find_no_room_are_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path, memory_bytes=0, max_bytes=100_000)
    data = File(geotiff(dn_pixels(200, 200), tiled=True, blockxsize=64, blockysize=64), None)
    with (
        OpenRaster(data, Limits(), whole=False) as raster,
        closing(strip_of(raster, spool)) as rows,
        pytest.raises(SpoolError, match="at most 100,000"),
    ):
        rows.of(next(windows(200, 200, 40)).window)
    assert spool.used == 0


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone", memory_bytes=0, max_bytes=1 << 30)
    data = File(geotiff(dn_pixels(60, 60)), None)
    with (
        OpenRaster(data, Limits(), whole=False) as raster,
        closing(strip_of(raster, spool)) as rows,
        pytest.raises(SpoolError, match="cannot be used"),
    ):
        rows.of(next(windows(60, 60, 40)).window)
    assert spool.used == 0


def strip_of(raster: OpenRaster, spool: Spool) -> Strip:
    return Strip(raster, BANDS, DN, steps(raster, Limits()), spool)


def test_what_is_too_high_to_be_held_is_refused() -> None:
    data = File(geotiff(dn_pixels(260, 60), tiled=True, blockxsize=16, blockysize=208), None)
    with OpenRaster(data, Limits(), whole=False) as raster:
        assert steps(raster, Limits(max_strip_bytes=208 * 60 * 14)).rows == 208
        with pytest.raises(GeotiffError, match="a strip of 208 rows"):
            steps(raster, Limits(max_strip_bytes=208 * 60 * 14 - 1))
