"""Files of a request: whichever way each is prepared, the tile is the same, in order, and fails alone."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model.tile_errors import TileError
from service import sample
from service.describe import PreparedTile
from service.errors import RequestError
from service.files import File, Source
from service.parameters import RequestOptions, TileParameters
from service.prepare import is_small, prepare, prepare_small
from service.prepare_files import prepare_files
from service.rasters.geotiff import GeotiffError, Limits
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import BUNDLE

LIMITS = Limits()
OPTIONS = RequestOptions()


def alike(came: PreparedTile, wanted: PreparedTile) -> bool:
    return (
        came.hash == wanted.hash
        and came.fields == wanted.fields
        and came.dn.tobytes() == wanted.dn.tobytes()
        and came.encoding.tobytes() == wanted.encoding.tobytes()
    )


def of(source: Source, parameters: TileParameters | None = None) -> PreparedTile:
    return prepare(source, parameters or TileParameters(), OPTIONS, BUNDLE, LIMITS)


def files() -> dict[str, File]:
    pixels = dn_pixels()
    return {
        "plain": File(sample.make(1), "a.tif"),
        "uncompressed": File(geotiff(pixels), None),
        "GDAL's": File(geotiff(pixels, compress="packbits"), "c.tif"),
        "large": File(geotiff(dn_pixels(60, 60), compress=None, blockysize=1) + bytes(70_000), "d.tif"),
        "empty": File(geotiff(np.full_like(pixels, 7), nodata=7), "e.tif"),
        "no file": File(b"hello, world", "f.tif"),
    }


def test_a_small_plain_file_needs_no_thread_and_gives_the_same_tile() -> None:
    found = files()
    for name in ("plain", "uncompressed"):
        wanted = of(found[name])
        came = prepare_small(found[name], TileParameters(), OPTIONS, BUNDLE, LIMITS)
        assert came is not None
        assert alike(came, wanted), name
    for name in ("GDAL's", "large", "no file"):
        assert prepare_small(found[name], TileParameters(), OPTIONS, BUNDLE, LIMITS) is None, name


def test_a_small_file_that_unpacks_to_much_is_no_work_for_the_event_loop() -> None:
    flat = File(geotiff(np.full((7, 120, 120), 9000, np.uint16), compress="deflate"), None)
    assert is_small(flat)
    assert prepare_small(flat, TileParameters(), OPTIONS, BUNDLE, LIMITS) is None


def test_a_tile_that_cannot_be_is_refused_alike() -> None:
    empty = files()["empty"]
    with pytest.raises(TileError) as wanted:
        of(empty)
    with pytest.raises(TileError) as came:
        prepare_small(empty, TileParameters(), OPTIONS, BUNDLE, LIMITS)
    assert (came.value.code, str(came.value)) == (wanted.value.code, str(wanted.value))


def test_of_two_things_that_are_wrong_the_same_one_is_told() -> None:
    """Whether GDAL read the file, as it does the first with certain GeoKeys, or not."""
    unclear, empty = np.full((7, 30, 30), 90, np.uint8), np.full((7, 30, 30), 7, np.uint16)
    for file in (File(geotiff(unclear), None), File(geotiff(empty, nodata=7), None)):
        with pytest.raises(TileError) as wanted:
            of(file)
        with pytest.raises(TileError) as came:
            prepare_small(file, TileParameters(), OPTIONS, BUNDLE, LIMITS)
        assert (came.value.code, str(came.value)) == ("wrong-size", str(wanted.value))


def test_files_of_all_kinds_come_back_in_order_each_with_its_own_fate() -> None:
    found = list(files().values()) * 5
    said: list[TileParameters | RequestError] = [TileParameters(id=str(i)) for i in range(len(found))]
    refused = RequestError("bad-parameter", "no")
    said[2] = said[13] = refused
    with ThreadPoolExecutor(2) as threads:
        outcomes = asyncio.run(prepare_files(found, said, OPTIONS, BUNDLE, LIMITS, threads))
    assert len(outcomes) == len(found)
    for i, (file, given, outcome) in enumerate(zip(found, said, outcomes, strict=True)):
        if isinstance(given, RequestError):
            assert outcome is refused
            continue
        if isinstance(outcome, PreparedTile):
            assert alike(outcome, of(file, given)), i
        else:
            with pytest.raises(type(outcome)) as wanted:
                of(file, given)
            assert isinstance(outcome, TileError | GeotiffError)
            assert str(outcome) == str(wanted.value), i


def test_the_event_loop_prepares_only_a_few_files_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(*arguments: object) -> PreparedTile:
        seen.append(threading.current_thread() is threading.main_thread())
        return prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("service.prepare_files.prepare", watched)
    many = [File(sample.make(seed), None) for seed in range(20)]
    with ThreadPoolExecutor(2) as threads:
        asyncio.run(prepare_files(many, [TileParameters()] * 20, OPTIONS, BUNDLE, LIMITS, threads))
    assert seen == [False] * 16


def test_what_is_nobodys_fault_is_not_a_tiles_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> PreparedTile:
        raise RuntimeError("a defect")

    monkeypatch.setattr("service.prepare_files.prepare", broken)
    with ThreadPoolExecutor(1) as threads, pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(prepare_files([files()["GDAL's"]], [TileParameters()], OPTIONS, BUNDLE, LIMITS, threads))


def test_what_is_wrong_with_a_file_does_not_hold_the_file() -> None:
    """In the frames that an error came through, until the garbage collector comes."""
    bad = [files()["empty"], files()["no file"], File(sample.make(1)[:9000], None)]
    said = [TileParameters()] * len(bad)
    with ThreadPoolExecutor(1) as threads:
        errors = asyncio.run(prepare_files(bad, said, OPTIONS, BUNDLE, LIMITS, threads))
    for error in errors:
        assert isinstance(error, Exception)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
