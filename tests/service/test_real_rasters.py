"""The rules on every real file at hand: tiles, scenes, and products that are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import tiles
from model.tiles import Prepared, TileError
from service.rasters.geotiff import GeotiffError
from tests.service.rasters.whole_file import Raster, read

pytestmark = pytest.mark.shared


def prepare(raster: Raster, path: Path, **parameters) -> Prepared:
    return tiles.prepare(
        raster.pixels,
        nodata=raster.nodata,
        descriptions=raster.descriptions,
        file_scales=raster.scales,
        file_offsets=raster.offsets,
        source=path.name,
        **parameters,
    )


def refused(path: Path, **parameters) -> TileError:
    with pytest.raises(TileError) as caught:
        prepare(read(path.read_bytes()), path, **parameters)
    return caught.value


def test_bigearthnet_tiles(shared):
    files = sorted((shared / "data" / "ben_landsat" / "images").glob("*.tif"))
    with_zeros = 0
    for path in files:
        raster = read(path.read_bytes())
        ready = prepare(raster, path)
        assert (ready.units, ready.warnings, ready.bands) == ("dn", (), tuple(range(1, 8)))
        tile = tiles.fit(ready.dn, ready.valid)
        assert tiles.pixel_size_warning(raster.gsd_m) == ()
        row, col = (raster.height - 40) // 2, (raster.width - 40) // 2
        crop = raster.pixels[:, row : row + 40, col : col + 40]
        np.testing.assert_array_equal(tile.dn, crop)
        np.testing.assert_array_equal(tile.valid, (crop > 0).all(axis=0))
        with_zeros += tile.valid_fraction < 1
    assert (len(files), with_zeros) == (148, 17)


def test_a_usgs_delivery_says_which_bands_are_missing(shared):
    (folder,) = (shared / "data" / "products").glob("LC08_L2SP_*_as_delivered")
    for path in sorted(folder.glob("*_SR_B*.TIF")):
        error = refused(path)
        name = path.stem[-5:]
        assert error.code == "wrong-band-count"
        assert f"This file is {name}; missing are " in error.message
    (qa,) = folder.glob("*_QA_PIXEL.TIF")
    assert "QA_PIXEL, none of the seven" in refused(qa).message
    (mtl,) = folder.glob("*_MTL.txt")
    with pytest.raises(GeotiffError) as caught:
        read(mtl.read_bytes())
    assert caught.value.code == "not-a-tiff"


def test_the_stacked_delivery_is_a_scene(shared):
    (folder,) = (shared / "data" / "products").glob("LC08_L2SP_*_as_delivered")
    rasters = [read(path.read_bytes()) for path in sorted(folder.glob("*_SR_B*.TIF"))]
    stacked = np.concatenate([raster.pixels for raster in rasters])
    ready = tiles.prepare(stacked, nodata=rasters[0].nodata)
    assert ready.units == "dn"
    assert 0 < ready.valid.mean() < 1
    (warning,) = tiles.pixel_size_warning(rasters[0].gsd_m)  # an overview: pixels of 516 m
    assert warning.code == "unusual-pixel-size"


def test_level_1_bands_are_single_files(shared):
    for path in sorted((shared / "data" / "products" / "LC08_L1_dn_elkton").glob("*.tiff")):
        assert refused(path).code == "wrong-band-count"


def test_hls(shared):
    path = shared / "data" / "products" / "hls_l30" / "hls_l30_10band_float32.tif"
    error = refused(path)
    assert error.code == "wrong-band-count"
    assert "send bands=1,2,3,4,5,6,7" in error.message
    error = refused(path, bands="1,2,3,4,5,6,7")
    assert error.code == "unknown-units"
    assert "send units=reflectance_1e4" in error.message
    ready = prepare(read(path.read_bytes()), path, bands="1,2,3,4,5,6,7", units="reflectance_1e4")
    assert (ready.units, ready.warnings) == ("reflectance_1e4", ())
    assert 7_273 < np.median(ready.dn) < 20_000
    with pytest.raises(TileError, match="224 x 224"):
        tiles.fit(ready.dn, ready.valid)
    assert tiles.fit(ready.dn, ready.valid, "crop").valid_fraction == 1.0


def test_sentinel_2_with_13_bands(shared):
    for path in sorted((shared / "data" / "products" / "sentinel2_l1c_13band").glob("*.tif")):
        error = refused(path)
        assert error.code == "wrong-band-count"
        assert "with B8A last, as in EuroSAT, send bands=1,2,3,4,13,11,12" in error.message
        error = refused(path, bands="1,2,3,4,13,11,12")
        assert "send units=reflectance_1e4" in error.message
        raster = read(path.read_bytes())
        ready = prepare(raster, path, bands="1,2,3,4,13,11,12", units="reflectance_1e4")
        assert ready.warnings == ()
        assert tiles.fit(ready.dn, ready.valid, "resize").valid_fraction > 0.99
        assert [w.code for w in tiles.pixel_size_warning(raster.gsd_m)] == ["unusual-pixel-size"]


def test_scenes(shared):
    folder = shared / "data" / "scenes"
    alberta = folder / "alberta_LC08_043024_20200802.tif"
    raster = read(alberta.read_bytes())
    ready = prepare(raster, alberta)
    assert ready.units == "dn"
    with pytest.raises(TileError, match="1001 x 1001"):
        tiles.fit(ready.dn, ready.valid)
    assert len(list(tiles.windows(raster.height, raster.width))) == 625
    assert raster.footprint((0, 0, 40, 40)) != raster.footprint((40, 0, 40, 40))

    momotombo = folder / "momotombo_LC08_017051_20151205_no_crs.tif"
    raster = read(momotombo.read_bytes())
    assert (raster.crs, raster.center, raster.footprint(raster.whole)) == (None, None, None)
    assert prepare(raster, momotombo).units == "dn"
    assert refused(folder / "alberta_landcover.tif").code == "wrong-band-count"
