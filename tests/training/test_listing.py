from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.rasters import dn_pixels, geotiff
from tests.training.packed import npz, packing, skipped, write
from training.cli import app
from training.shards import PackError, open_packed


def test_a_listing_says_what_the_files_do_not(tmp_path: Path) -> None:
    for name in ("a", "sub/b", "sub/c"):
        write(tmp_path / f"f/{name}.tif", geotiff(crs=None if name == "a" else "EPSG:32633"))
    lines = (
        "id,datetime,lat,lon,labels\nsub/c.tif,2021-03-04T05:00:00Z,,,Forest|River\na,2020-01-01,-10.5,20,\n"
    )
    write(tmp_path / "list.csv", lines.encode())
    found = packing(tmp_path, {"name": "f", "kind": "folder", "path": "f", "listing": "list.csv"})
    assert found.column("id").tolist() == ["sub/c", "a"]
    assert found.column("time").tolist() == ["2021-03-04T05:00:00Z", "2020-01-01"]
    assert found.column("labels").tolist() == ["Forest|River", ""]
    assert found.column("lat")[1] == -10.5
    assert 47 < found.column("lat")[0] < 48  # of the file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,datetime\na,yesterday\n", r"line 2: datetime 'yesterday'"),
        (b"id,lat,lon\na,95,0\n", r"line 2: lat is 95"),
        (b"id,lat,lon\na,5,\n", r"line 2: lat came without lon"),
        (b"a\nb\na\n", r"line 3: a is listed twice"),
        (b"datetime,id\n2020-01-01\n", r"line 2: no id"),
        (b"\xff\xfe\xff", r"not a readable CSV"),
        (b"id,label\na,River\n", r"a column is called 'label'; expected 'labels'"),
        (b"ID,labels\na,River\n", r"a column is called 'ID'; expected 'id'"),
        (b"filename,labels\na,River\n", r"no column is called 'id' .*; found filename, labels"),
        (b"id;labels\na;River\n", r"columns 'id;labels' are not separated by commas"),
        (b"id,labels\na,Pastures, meadows\n", r"line 2: 3 values for 2 columns"),
    ],
)
def test_a_listing_that_cannot_be_used_names_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path / "f/a.tif", geotiff())
    write(tmp_path / "list.csv", content)
    with pytest.raises(PackError, match=message):
        packing(tmp_path, {"name": "f", "kind": "folder", "path": "f", "listing": "list.csv"})


@pytest.mark.parametrize("content", [b"a,River\n", b"name,split\na,train\n", b"id,labels,label\na,,x,,\n"])
def test_columns_that_are_not_read_may_be_called_anything(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "f/a.tif", geotiff())
    write(tmp_path / "list.csv", content)
    found = packing(tmp_path, {"name": "f", "kind": "folder", "path": "f", "listing": "list.csv"})
    assert found.column("id").tolist() == ["a"]


def test_a_list_takes_scenes_and_says_what_is_known_of_them(tmp_path: Path) -> None:
    for name, crs in (("x/scene", "EPSG:32633"), ("y/scene", None), ("y/unlisted", "EPSG:32633")):
        write(tmp_path / f"in/{name}.tif", geotiff(dn_pixels(80, 80), crs=crs))
    lines = ["id,datetime,lat,lon,labels", "y/scene,,-10.5,20,River", "x/scene.tif,2021-03-04T05:00:00Z,1,2,"]
    write(tmp_path / "list.csv", "\n".join([*lines, "gone,,,,"]).encode())
    arguments = ["pack", str(tmp_path / "in"), "--list", str(tmp_path / "list.csv"), "--when", "2020-01-01"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    found = open_packed(tmp_path / "out")
    assert found.sources().tolist() == ["x_scene"] * 4 + ["y_scene"] * 4
    assert found.column("time").tolist() == ["2021-03-04T05:00:00Z"] * 4 + ["2020-01-01"] * 4
    assert found.column("labels").tolist() == [""] * 4 + ["River"] * 4
    assert (found.column("lat")[:4] > 47).all()  # each window's own, of the file
    assert found.column("lat")[4:].tolist() == [-10.5] * 4
    assert skipped(found).keys() == {"gone"}


def test_a_list_takes_tiles_of_an_npz_and_goes_before_its_columns(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz", 6)
    write(
        tmp_path / "list.csv",
        b"id,datetime,lat,lon,labels\nt4,2021-03-04,-10.5,20,River|Sea\nt1,,,,\nt99,,,,\n",
    )
    write(tmp_path / "names.csv", b"id\nt1\n")
    found = packing(tmp_path, {"name": "s", "kind": "npz", "path": "set.npz", "listing": "list.csv"})
    assert found.column("id").tolist() == ["t1", "t4"]
    assert found.column("time").tolist() == ["2019-07-27", "2021-03-04"]
    assert found.column("labels").tolist() == ["", "River|Sea"]  # the list's column says that t1 has none
    assert found.column("lat").tolist() == [-36, -10.5]
    assert skipped(found).keys() == {"t99"}
    found = packing(tmp_path, {"name": "s", "kind": "npz", "path": "set.npz", "listing": "names.csv"})
    assert found.column("labels").tolist() == ["Forest|Water"]


def test_a_list_takes_rows_of_an_npz_without_ids(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.stack([dn_pixels(40, 40, seed=i) for i in range(3)]))
    write(tmp_path / "list.csv", b"set_000002\n")
    found = packing(tmp_path, {"name": "s", "kind": "npz", "path": "set.npz", "listing": "list.csv"})
    assert found.column("id").tolist() == ["set_000002"]


def test_a_list_takes_rows_of_an_npz_that_are_called_by_files(tmp_path: Path) -> None:
    x = np.stack([dn_pixels(40, 40, seed=i) for i in range(3)])
    np.savez(tmp_path / "set.npz", x=x, id=["a.tif", "b.tif", "c"])
    write(tmp_path / "list.csv", b"id,labels\nb.tif,River\nc,Sea\n")
    found = packing(tmp_path, {"name": "s", "kind": "npz", "path": "set.npz", "listing": "list.csv"})
    assert found.column("id").tolist() == ["b.tif", "c"]
    assert found.column("labels").tolist() == ["River", "Sea"]


def test_a_list_of_several_sources_is_missing_only_what_none_has(tmp_path: Path) -> None:
    write(tmp_path / "f/a.tif", geotiff())
    write(tmp_path / "g/b.tif", geotiff())
    write(tmp_path / "g/c.tif", geotiff())
    npz(tmp_path / "set.npz", 4)
    write(tmp_path / "list.csv", b"a\nb\nt2\ngone\n")
    sources = [{"name": n, "kind": "folder", "path": n, "listing": "list.csv"} for n in ("f", "g")]
    found = packing(
        tmp_path, *sources, {"name": "s", "kind": "npz", "path": "set.npz", "listing": "list.csv"}
    )
    assert found.column("id").tolist() == ["a", "b", "t2"]
    assert skipped(found).keys() == {"gone"}


@pytest.mark.parametrize("kind", ["folder", "scene"])
def test_a_list_of_other_tiles_leaves_what_is_packed(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "a.tif", geotiff(dn_pixels(60, 60)))
    before = packing(tmp_path, {"name": "f", "kind": kind, "path": "a.tif"})
    write(tmp_path / "list.csv", b"b\n")
    with pytest.raises(PackError, match=r"none of the tiles that list\.csv lists"):
        packing(tmp_path, {"name": "f", "kind": kind, "path": "a.tif", "listing": "list.csv"})
    assert open_packed(before.path).count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "reflectance"}, "source set: units cannot be applied to an .npz set"),
        ({"bands": "1,2,3,4,5,6,7", "fit": "crop"}, "bands, fit cannot be applied to an .npz set"),
        ({"stitch": True, "listing": "list.csv"}, "list cannot be applied to an .npz set that is stitched"),
        ({"kind": "scene", "fit": "resize"}, "fit cannot be applied to a scene"),
        ({"kind": "folder", "stitch": True}, "only tiles of an .npz set can be stitched"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    npz(tmp_path / "set.npz", 3)
    write(tmp_path / "list.csv", b"t1\n")
    with pytest.raises(PackError, match=message):
        packing(tmp_path, {"name": "set", "kind": "npz", "path": "set.npz"} | options)
    assert not (tmp_path / "packed").exists()


def test_the_command_refuses_them_in_one_line(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", 3)
    out = ["-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["pack", str(path), "--units", "reflectance", *out])
    assert result.exit_code == 1
    assert result.output.startswith("error: source set: units cannot be applied")
    assert result.output.count("\n") == 1
    assert CliRunner().invoke(app, ["pack", str(path), "--units", "dn", *out]).exit_code == 0
    config = write(tmp_path / "c.yaml", b"sources: [{name: a, kind: npz, path: set.npz}]")
    result = CliRunner().invoke(
        app, ["pack", "--config", str(config), "--list", "x.csv", "--stride", "9", *out]
    )
    assert result.exit_code == 2
    assert "listing, stride" in result.output


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        ({"TIFFTAG_DATETIME": "2020:08:02 18:31:05"}, "2020-08-02T18:31:05Z"),
        (
            {"TIFFTAG_DATETIME": "2020:08:02 18:31:05", "ACQUISITION_DATETIME": "2020-08-02T18:31:06.5Z"},
            "2020-08-02T18:31:06Z",
        ),
        ({"TIFFTAG_DATETIME": "yesterday"}, ""),
        ({"TIFFTAG_DATETIME": "2020:08:02 18:31:05", "ACQUISITION_DATETIME": "?"}, "2020-08-02T18:31:05Z"),
    ],
)
def test_a_scene_has_the_time_of_its_tags_where_nothing_else_says_one(
    tmp_path: Path, tags: dict[str, str], time: str
) -> None:
    write(tmp_path / "scene.tif", geotiff(dn_pixels(80, 80), tags=tags))
    source = {"name": "s", "kind": "scene", "path": "scene.tif"}
    assert set(packing(tmp_path, source).column("time").tolist()) == {time}
    assert set(packing(tmp_path, source | {"when": "2021-03-04"}).column("time").tolist()) == {"2021-03-04"}
    write(tmp_path / "tile/tile.tif", geotiff(tags=tags))
    tile = packing(tmp_path, {"name": "t", "kind": "folder", "path": "tile"})
    assert tile.column("time").tolist() == [""]  # of a tile it may be the time of cutting
