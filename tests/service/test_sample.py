"""The synthetic tile."""

from __future__ import annotations

from typer.testing import CliRunner

from model import tiles
from model.bands import BANDS
from model.metadata import parse_datetime, parse_tiff_datetime
from service import sample
from service.cli import app
from tests.rasters import read_tags
from tests.service.rasters.whole_file import read


def test_the_same_seed_gives_the_same_bytes():
    assert sample.make(3) == sample.make(3)
    assert sample.make(3) != sample.make(4)


def test_it_is_a_good_tile():
    raster = read(sample.make())
    assert raster.descriptions == BANDS
    ready = tiles.prepare(raster.pixels, nodata=raster.nodata, descriptions=raster.descriptions)
    assert (ready.units, ready.warnings) == ("dn", ())
    assert tiles.fit(ready.dn, ready.valid).valid_fraction == 1.0
    assert tiles.pixel_size_warning(raster.gsd_m) == ()
    assert raster.center is not None
    assert raster.tag_datetime is not None
    assert parse_tiff_datetime(raster.tag_datetime).when == parse_datetime(sample.DATETIME).when


def test_the_file_says_that_it_is_synthetic():
    assert "SYNTHETIC" in read_tags(sample.make())["TIFFTAG_IMAGEDESCRIPTION"]


def test_the_command(tmp_path):
    target = tmp_path / "my tile.tif"
    result = CliRunner().invoke(app, ["sample-tile", "-o", str(target), "--seed", "5"])
    assert result.exit_code == 0
    assert target.read_bytes() == sample.make(5)
    assert "SYNTHETIC" in result.output
    assert f"curl -F 'tile=@{target}' -F datetime=" in result.output


def test_the_command_in_a_pipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample-tile", "-o", "-"])
    assert result.exit_code == 0
    assert result.stdout_bytes == sample.make()
    assert list(tmp_path.iterdir()) == []


def test_the_command_where_it_cannot_write(tmp_path):
    result = CliRunner().invoke(app, ["sample-tile", "-o", str(tmp_path / "no" / "tile.tif")])
    assert result.exit_code == 1
    assert "No such file or directory" in result.output
