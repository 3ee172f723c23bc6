"""Sources of every kind give tiles with place, time and labels; what cannot be read is named and skipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model import metadata, tiles
from tests.rasters import dn_pixels, geotiff
from tests.training.packed import npz, packed, packing, skipped, write


def test_npz_columns_come_through(tmp_path: Path) -> None:
    found = packed(tmp_path)
    with np.load(tmp_path / "set.npz") as archive:
        np.testing.assert_array_equal(found.column("pixels"), archive["x"])
        np.testing.assert_array_equal(found.column("b1_estimated"), archive["b1_estimated"])
        np.testing.assert_array_equal(found.column("lat"), archive["lat"])
    assert found.column("labels")[1] == "Forest|Water"
    assert found.column("valid_fraction")[0] == np.float32(1 - 35 / 1600)
    assert found.column("time")[:2].tolist() == ["2019-07-27T10:00:00Z", "2019-07-27"]
    acquisition = metadata.parse_datetime("2019-07-27")
    lat, lon = float(found.column("lat")[1]), float(found.column("lon")[1])
    np.testing.assert_array_equal(found.column("encodings")[1], metadata.encode(acquisition, lat, lon))
    np.testing.assert_array_equal(found.column("encodings")[-1][2:], np.zeros((2, 2)))


def test_hour_convention_reaches_the_encodings(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz")
    source = {"name": "set", "kind": "npz", "path": "set.npz"}
    found = packing(tmp_path, source, hour_convention="first_digit")
    when = metadata.parse_datetime("2019-07-27T10:00:00Z")
    lat = float(found.column("lat")[0])
    expected = metadata.encode(when, lat, 5.0, hour_convention="first_digit")
    np.testing.assert_array_equal(found.column("encodings")[0], expected)


def test_an_archive_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", 4)
    write(tmp_path / "broken.npz", (tmp_path / "a.npz").read_bytes()[:2000])
    write(tmp_path / "text.npz", b"404")
    sources = [{"name": n, "kind": "npz", "path": f"{n}.npz"} for n in ("a", "broken", "text")]
    found = packing(tmp_path, *sources)
    assert found.count == 4
    assert skipped(found).keys() == {"broken.npz", "text.npz"}


def test_stitched_tiles_are_cut_anew_from_their_scene(tmp_path: Path) -> None:
    scene = dn_pixels(120, 160, seed=3)
    offsets = [(r, c) for r in range(0, 120, 40) for c in range(0, 160, 40) if (r, c) != (80, 120)]
    lat = [50 - r * 3e-4 for r, _ in offsets]
    lon = [8 + c * 4e-4 for _, c in offsets]
    np.savez(
        tmp_path / "s.npz",
        x=np.stack([scene[:, r : r + 40, c : c + 40] for r, c in offsets]),
        id=np.array([f"scene_{r:04d}_{c:04d}" for r, c in offsets]),
        group=np.array(["scene"] * len(offsets)),
        lat=np.array(lat),
        lon=np.array(lon),
    )
    source = {"name": "s", "kind": "npz", "path": "s.npz", "stitch": True, "stride": 18}
    found = packing(tmp_path, source)
    ids = found.column("id").tolist()
    # Every window of the stride, but for those that reach into the tile that is missing.
    expected = [(r, c) for r in range(0, 81, 18) for c in range(0, 121, 18) if not (r > 40 and c > 80)]
    assert ids == [f"scene_{r:04d}_{c:04d}" for r, c in expected]
    for (r, c), pixels in zip(expected, found.column("pixels"), strict=True):
        np.testing.assert_array_equal(pixels, scene[:, r : r + 40, c : c + 40])
    at = ids.index("scene_0018_0036")
    assert found.column("lat")[at] == pytest.approx(50 - 18 * 3e-4)
    assert found.column("lon")[at] == pytest.approx(8 + 36 * 4e-4)


def test_bigearthnet_layout(tmp_path: Path) -> None:
    name = "S2B_MSIL2A_20180525T94031_0_20"
    pixels = dn_pixels(45, 43)
    pixels[:, 20, 20] = 0
    write(tmp_path / f"ben/images/{name}.tif", geotiff(pixels))
    write(tmp_path / "ben/images/S2A_unlabelled.tif", geotiff(dn_pixels(41, 41)))
    write(tmp_path / "ben/images/S2A_empty_1.tif", geotiff(np.zeros((7, 41, 41), np.uint16)))
    labels = json.dumps({"labels": ["Mixed forest", "Sea and ocean"]}).encode()
    write(tmp_path / f"ben/labels/{name}_labels_metadata.json", labels)
    write(tmp_path / "ben/samples.csv", f"id\n{name}\nS2A_unlabelled\nS2A_empty_1\nS2A_gone\n".encode())
    source = {"name": "ben", "kind": "bigearthnet", "path": "ben", "listing": "ben/samples.csv"}
    found = packing(tmp_path, source)
    assert found.column("id").tolist() == [name, "S2A_unlabelled"]
    assert found.column("labels").tolist() == ["Mixed forest|Sea and ocean", ""]
    assert found.column("time").tolist() == ["2018-05-25T09:40:31Z", ""]
    np.testing.assert_array_equal(found.column("pixels")[0], pixels[:, 2:42, 1:41])
    assert found.column("valid_fraction")[0] == np.float32(1599 / 1600)
    assert found.column("gsd")[0] == pytest.approx(30)
    # 45 rows from northing 5,293,245 at 30 m in zone 33N.
    assert found.column("lat")[0] == pytest.approx(47.776, abs=0.01)
    reasons = skipped(found)
    assert "none of the" in reasons["S2A_empty_1.tif"]
    assert "no source has a file" in reasons["S2A_gone"]


def test_eurosat_layout_resizes_and_drops_the_surplus_band(tmp_path: Path) -> None:
    pixels = dn_pixels(22, 22, count=8)
    write(tmp_path / "eurosat/Forest/Forest_1.tif", geotiff(pixels))
    write(tmp_path / "eurosat/River/River_1.tif", geotiff(dn_pixels(22, 22, count=8, seed=1)))
    found = packing(tmp_path, {"name": "e", "kind": "eurosat", "path": "eurosat", "fit": "resize"})
    assert found.column("labels").tolist() == ["Forest", "River"]
    expected = tiles.fit(pixels[:7], np.ones((22, 22), bool), "resize")
    np.testing.assert_array_equal(found.column("pixels")[0], expected.dn)


def test_folder_prepares_like_the_service(tmp_path: Path) -> None:
    reflectance = (dn_pixels(44, 44) * 2.75e-5 - 0.2).astype(np.float32)
    reflectance[3, 10, 10] = np.nan
    write(tmp_path / "f/a.tif", geotiff(reflectance))
    write(tmp_path / "f/sub/b.TIFF", geotiff(crs=None))
    write(tmp_path / "f/broken.tif", geotiff()[:300])
    write(tmp_path / "f/text.tif", b"not a tiff")
    write(tmp_path / "f/six.tif", geotiff(dn_pixels(count=6)))
    write(tmp_path / "f/large.tif", geotiff(dn_pixels(80, 80)))
    found = packing(tmp_path, {"name": "f", "kind": "folder", "path": "f", "when": "2021-03-04"})
    assert found.column("id").tolist() == ["a", "sub/b"]
    assert np.isnan(found.column("lat")[1])
    prepared = tiles.prepare(reflectance)
    np.testing.assert_array_equal(
        found.column("pixels")[0], tiles.fit(prepared.dn, prepared.valid, "crop").dn
    )
    assert found.column("time").tolist() == ["2021-03-04"] * 2
    reasons = skipped(found)
    assert reasons.keys() == {"broken.tif", "text.tif", "six.tif", "large.tif"}
    assert "coastal" in reasons["six.tif"]
    assert "80 x 80" in reasons["large.tif"]


def test_scene_is_cut_into_a_grid_with_places(tmp_path: Path) -> None:
    pixels = dn_pixels(100, 90)
    pixels[:, :40, :40] = 0
    write(tmp_path / "scene.tif", geotiff(pixels, nodata=0))
    found = packing(tmp_path, {"name": "s", "kind": "scene", "path": "scene.tif", "stride": 25})
    cut = [(r, c) for r in (0, 25, 50) for c in (0, 25, 50) if (r, c) != (0, 0)]
    assert found.column("id").tolist() == [f"scene_{r:04d}_{c:04d}" for r, c in cut]
    for (r, c), tile in zip(cut, found.column("pixels"), strict=True):
        np.testing.assert_array_equal(tile, pixels[:, r : r + 40, c : c + 40])
    lat = found.column("lat").reshape(-1)
    assert lat[0] - lat[-1] == pytest.approx(50 * 30 / 111_195, rel=0.01)


@pytest.mark.parametrize("kind", ["folder", "scene"])
def test_longitudes_up_to_360_are_those_of_the_service(tmp_path: Path, kind: str) -> None:
    origin = (246.0, 51.0)
    write(
        tmp_path / "f/a.tif", geotiff(dn_pixels(40, 40), crs="EPSG:4326", origin=origin, pixel_size=0.00027)
    )
    path = "f/a.tif" if kind == "scene" else "f"
    found = packing(tmp_path, {"name": "f", "kind": kind, "path": path})
    assert found.column("lon")[0] == pytest.approx(-114.0 + 20 * 0.00027)


@pytest.mark.parametrize("kind", ["folder", "scene"])
def test_pixels_that_a_mask_in_the_file_hides_are_nodata(tmp_path: Path, kind: str) -> None:
    pixels, mask = dn_pixels(40, 80 if kind == "scene" else 40), np.full((40, 40), 255, np.uint8)
    mask[:10] = 0
    whole = np.full(pixels.shape[1:], 255, np.uint8)
    whole[:, :40] = mask
    write(tmp_path / "f/a.tif", geotiff(pixels, mask=whole))
    path = "f/a.tif" if kind == "scene" else "f"
    found = packing(tmp_path, {"name": "f", "kind": kind, "path": path})
    assert found.column("valid_fraction")[0] == 0.75
    assert not found.column("pixels")[0, :, :10].any()
    np.testing.assert_array_equal(found.column("pixels")[0, :, 10:], pixels[:, 10:, :40])


@pytest.mark.parametrize("kind", ["folder", "scene"])
def test_a_last_band_that_is_alpha_is_such_a_mask(tmp_path: Path, kind: str) -> None:
    pixels = dn_pixels(40, 80 if kind == "scene" else 40, count=8)
    pixels[7], pixels[7, :10, :40] = 65535, 0
    write(tmp_path / "f/a.tif", geotiff(pixels, alpha=True))
    path = "f/a.tif" if kind == "scene" else "f"
    found = packing(tmp_path, {"name": "f", "kind": kind, "path": path})
    assert found.column("valid_fraction")[0] == 0.75
    np.testing.assert_array_equal(found.column("pixels")[0, :, 10:], pixels[:7, 10:, :40])


def test_units_of_a_scene_are_told_from_pixels_that_are_not_hidden(tmp_path: Path) -> None:
    reflectance = (dn_pixels(80, 80) * 2.75e-5 - 0.2).astype(np.float32)
    reflectance[:, :60] = 1e6
    mask = np.full((80, 80), 255, np.uint8)
    mask[:60] = 0
    write(tmp_path / "scene.tif", geotiff(reflectance, mask=mask))
    found = packing(tmp_path, {"name": "s", "kind": "scene", "path": "scene.tif"})
    np.testing.assert_array_equal(found.column("valid_fraction"), [0.5, 0.5])


def test_real_bigearthnet_files_give_the_tiles_of_the_npz(shared: Path, tmp_path: Path) -> None:
    found = packing(
        shared / "data",
        {"name": "tif", "kind": "bigearthnet", "path": "ben_landsat"},
        {"name": "npz", "kind": "npz", "path": "tiles/ben_landsat.npz"},
        out=str(tmp_path / "packed"),
    )
    files, sets = found.shards
    assert files.count == sets.count == 148
    order = [list(sets.column("id")).index(i) for i in files.column("id")]
    for name in ("pixels", "labels"):
        np.testing.assert_array_equal(files.column(name), sets.column(name)[order])
    # The set has no hour for the one patch whose label file is missing; the file's name has it.
    labelled = files.column("labels") != ""
    np.testing.assert_array_equal(files.column("time")[labelled], sets.column("time")[order][labelled])
    np.testing.assert_allclose(files.column("lat"), sets.column("lat")[order], atol=2e-4)
    places = {}
    for shard in found.shards:
        for name, place in zip(shard.column("id"), shard.column("place"), strict=True):
            places.setdefault(name, set()).add(int(place))
    assert all(len(p) == 1 for p in places.values())  # the same patch twice is one place
