from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model import tiles
from tests.rasters import dn_pixels, geotiff
from tests.training.packed import npz, skipped, write
from training.cli import app
from training.detect import detect_all
from training.pack import PackConfig, pack
from training.shards import PackedSet, PackError, open_packed

DELIVERY = "LC08_L2SP_190027_20200802_20200915_02_T1"


def detected(*paths: Path) -> dict[str, str]:
    """Kinds of the sources that paths are taken for, by their names."""
    return {source.name: source.kind for source in detect_all(paths)}


def packing(folder: Path, *paths: Path) -> PackedSet:
    config = PackConfig(sources=tuple(detect_all(paths)))
    return pack(config, folder, folder / "packed", workers=1, quiet=True)


def delivery(folder: Path, side: int = 100) -> Path:
    for name in (*(f"SR_B{band}" for band in range(1, 8)), "QA_PIXEL"):
        write(folder / f"{DELIVERY}_{name}.TIF", geotiff(dn_pixels(side, side, count=1)))
    return folder


def test_command_finds_out_what_a_path_is(tmp_path: Path) -> None:
    write(tmp_path / "scene.tif", geotiff(dn_pixels(100, 100)))
    write(tmp_path / "tiles/a.tif", geotiff())
    write(tmp_path / "euro/Forest/f.tif", geotiff(dn_pixels(22, 22)))
    npz(tmp_path / "sets/a.npz", 3) if (tmp_path / "sets").mkdir() is None else None
    paths = [str(tmp_path / n) for n in ("scene.tif", "tiles", "euro", "sets")]
    result = CliRunner().invoke(app, ["pack", *paths, "-o", str(tmp_path / "out"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    found = open_packed(tmp_path / "out")
    kinds = {s["name"]: s["kind"] for s in found.manifest["config"]["sources"]}
    assert kinds == {"scene": "scene", "tiles": "folder", "euro": "eurosat", "a": "npz"}
    assert found.count == 4 + 1 + 1 + 3


@pytest.mark.parametrize("folder", ["", "Forest"])
def test_a_file_that_cannot_be_read_decides_nothing(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "tiles" / folder / "aaa.tif", b"<html>404</html>")
    pixels = [dn_pixels(45, 45, seed=i) for i in range(6)]
    for i, tile in enumerate(pixels):
        write(tmp_path / "tiles" / folder / f"t{i}.tif", geotiff(tile))
    assert detected(tmp_path / "tiles") == {"tiles": "folder"}
    found = packing(tmp_path, tmp_path / "tiles")
    assert found.column("labels").tolist() == [""] * 6
    np.testing.assert_array_equal(found.column("pixels"), [tile[:, 2:42, 2:42] for tile in pixels])
    assert skipped(found).keys() == {"aaa.tif"}


@pytest.mark.parametrize("folder", ["", "Forest"])
def test_each_tile_is_cropped_or_resized_by_its_own_size(tmp_path: Path, folder: str) -> None:
    small, large = dn_pixels(38, 38), dn_pixels(45, 45)
    for name, pixels in (("a", small), ("b", large), ("c", large)):
        write(tmp_path / "tiles" / folder / f"{name}.tif", geotiff(pixels))
    found = packing(tmp_path, tmp_path / "tiles")
    resized = tiles.fit(small, np.ones((38, 38), bool), "resize").dn
    cropped = large[:, 2:42, 2:42]
    np.testing.assert_array_equal(found.column("pixels"), [resized, cropped, cropped])
    np.testing.assert_allclose(found.column("gsd"), [30 * 38 / 40, 30, 30])
    assert found.column("labels").tolist() == [""] * 3


def test_what_is_odd_in_a_folder_of_classes_changes_no_label(tmp_path: Path) -> None:
    for name in ("Forest/a", "Forest/b", "River/c", "overview"):
        write(tmp_path / f"euro/{name}.tif", geotiff(dn_pixels(22, 22)))
    write(tmp_path / "euro/Forest/aaa.tif", b"<html>404</html>")
    write(tmp_path / "euro/River/large.tif", geotiff(dn_pixels(45, 45)))
    assert detected(tmp_path / "euro") == {"euro": "eurosat"}
    found = packing(tmp_path, tmp_path / "euro")
    labels = dict(zip(found.column("id"), found.column("labels"), strict=True))
    assert labels.pop("overview") == ""
    assert labels == {name: name.split("/")[0] for name in ("Forest/a", "Forest/b", "River/c", "River/large")}


def test_scenes_among_tiles_are_cut_and_the_tiles_are_tiles(tmp_path: Path) -> None:
    write(tmp_path / "mixed/a.tif", geotiff())
    write(tmp_path / "mixed/scene.tif", geotiff(dn_pixels(80, 120)))
    write(tmp_path / "mixed/thin.tif", geotiff(dn_pixels(20, 120)))
    assert detected(tmp_path / "mixed") == {"scene": "scene", "mixed": "folder"}
    found = packing(tmp_path, tmp_path / "mixed")
    assert found.count == 6 + 1
    assert skipped(found).keys() == {"thin.tif"}


def test_another_scene_does_not_pack_the_tiles_beside_it_again(tmp_path: Path) -> None:
    write(tmp_path / "mixed/a.tif", geotiff())
    write(tmp_path / "mixed/b.tif", geotiff(dn_pixels(80, 80)))
    before = packing(tmp_path, tmp_path / "mixed").shards[-1].path
    write(tmp_path / "mixed/c.tif", geotiff(dn_pixels(80, 80)))
    assert packing(tmp_path, tmp_path / "mixed").shards[-1].path == before


def test_scenes_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("x/scene", "y/scene", "y/2021/scene", "z/other"):
        write(tmp_path / f"{name}.tif", geotiff(dn_pixels(80, 80)))
    two = [tmp_path / "x/scene.tif", tmp_path / "y/scene.tif", tmp_path / "z/other.tif"]
    assert detected(*two) == {"x_scene": "scene", "y_scene": "scene", "other": "scene"}
    assert detected(tmp_path / "x", tmp_path / "y").keys() == {"x_scene", "y_scene", "2021_scene"}
    found = packing(tmp_path, *two)
    assert found.count == 3 * 4
    write(tmp_path / "x/scene.tiff", geotiff(dn_pixels(80, 80)))
    assert detected(tmp_path / "x").keys() == {"scene", "scene-2"}


def test_a_path_that_comes_twice_is_named(tmp_path: Path) -> None:
    scene = write(tmp_path / "x/scene.tif", geotiff(dn_pixels(80, 80)))
    with pytest.raises(PackError, match=r"scene\.tif is given twice"):
        detect_all([tmp_path / "x", scene])


@pytest.mark.parametrize("side", [41, 100])
def test_a_usgs_delivery_is_told_to_be_stacked(tmp_path: Path, side: int) -> None:
    folder = delivery(tmp_path / "in/one", side)
    out = str(tmp_path / "out")
    result = CliRunner().invoke(app, ["pack", str(tmp_path / "in"), "-o", out])
    assert result.exit_code == 1
    assert f"landmoe stack {folder} -o scene.tif" in result.output
    band = next(folder.glob("*_SR_B3.TIF"))
    result = CliRunner().invoke(app, ["pack", str(band), "-o", out])
    assert result.exit_code == 1
    assert "This file is SR_B3" in result.output
    assert "landmoe stack FOLDER -o scene.tif" in result.output


def test_a_file_stacked_beside_its_bands_is_packed(tmp_path: Path) -> None:
    write(delivery(tmp_path / "one") / "scene.tif", geotiff(dn_pixels(100, 100)))
    found = packing(tmp_path, tmp_path / "one")
    assert found.count == 4
    reasons = skipped(found)
    assert len(reasons) == 8
    assert all("landmoe stack" in reason for reason in reasons.values())
