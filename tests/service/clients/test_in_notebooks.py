"""The client between tables and processes, as data science uses it."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from service.client import Client, Tile, UnusableTileError
from tests.rasters import geotiff
from tests.service.test_client import local

NOTHING = [None, np.nan, pandas.NaT, pandas.NA, np.datetime64("NaT")]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local() as client:
        yield client


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_a_table_does_not_have_is_not_said(client: Client, nothing: Any) -> None:
    tile = Tile(data=geotiff(), id=nothing, datetime=nothing, lat=nothing, lon=nothing, units=nothing)
    [result] = client.embed(tile).results
    assert result.id == "0"
    assert result.fields["metadata_source"] == {"datetime": "missing", "hour": "missing", "location": "file"}


def test_a_value_for_nothing_may_be_nan(client: Client) -> None:
    holes = np.full((7, 40, 40), 0.1, np.float32)
    holes[:, :20] = np.nan
    [result] = client.embed(Tile(data=holes, nodata=np.nan, units="reflectance")).results
    assert result.fields["valid_fraction"] == 0.5


def test_a_folder_of_tiles_is_no_tile(client: Client, tmp_path: Path) -> None:
    """The commands look into it; here a folder is a delivery."""
    (tmp_path / "a.tif").write_bytes(geotiff())
    with pytest.raises(UnusableTileError, match="; a folder of tiles is given as its files"):
        client.embed(tmp_path)
    assert len(client.embed(tmp_path.glob("*.tif"))) == 1
    (tmp_path / "LC08_L2SP_192027_20200802_20200914_02_T1_SR_B1.TIF").write_bytes(geotiff())
    with pytest.raises(UnusableTileError, match=r"expected all seven bands$"):
        client.embed(tmp_path)


def test_a_process_that_was_forked_is_told_to_open_its_own(client: Client) -> None:
    """The thread that would ask is the parent's: as in a pool's workers, the call would never end."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()

    def ask(pipe: Connection) -> None:
        try:
            client.embed(geotiff())
        except RuntimeError as error:
            pipe.send(str(error))

    child = fork.Process(target=ask, args=(there,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python, since there are threads
        child.start()
    try:
        assert here.poll(30)
        assert "before this process was forked" in here.recv()
    finally:
        child.kill()
        child.join()
