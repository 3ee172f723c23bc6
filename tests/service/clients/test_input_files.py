"""What a command line names: folders, tables, and files that are not what they seem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.clients.errors import InputError
from service.clients.input_files import find_tiles
from tests.service.clients.test_stac import item


def test_hidden_files_of_a_folder_are_not_meant(tmp_path: Path) -> None:
    for name in ("a.tif", "._a.tif", ".b.tif", "b.TIFF", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [tile.path for tile in find_tiles([tmp_path], None, {})] == [
        tmp_path / "a.tif",
        tmp_path / "b.TIFF",
    ]
    assert [tile.path for tile in find_tiles([tmp_path / ".b.tif"], None, {})] == [tmp_path / ".b.tif"]


def test_a_broken_link_is_a_tile_that_will_fail(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "b.tif").symlink_to(tmp_path / "nowhere")
    found = find_tiles([tmp_path], None, {})
    assert [tile.usable for tile in found] == [True, False]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a.tif,47.5,13,2", "line 3: more cells than the 3 columns"),
        ("a.tif,47,13\na.tif,48,13", "line 4: a.tif has a row before"),
    ],
)
def test_a_table_that_says_too_much(tmp_path: Path, rows: str, words: str) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_text(f"file,lat,lon\nb.tif,1,2\n{rows}\n")
    with pytest.raises(InputError, match=words):
        find_tiles([tmp_path], table, {})


def test_a_row_that_stands_for_several_files_is_told(tmp_path: Path) -> None:
    files = [tmp_path / folder / name for folder in ("2019", "2020") for name in ("a.tif", "b.tif")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_text(f"file,datetime\na.tif,2019-08-02\n{files[1]},2019-08-03\nb.tif,2020-08-03\n")
    said: list[str] = []
    found = find_tiles([*files, files[3]], table, {}, said.append)
    days = ["2019-08-02", "2019-08-03", "2019-08-02", "2020-08-03", "2020-08-03"]
    assert [tile.datetime for tile in found] == days
    assert said == [f"{table} has one row, a.tif, for {files[0]}, {files[2]}; a path in it is of one file"]


def test_a_table_may_name_urls_with_or_without_what_follows_their_path(tmp_path: Path) -> None:
    urls = [f"https://x.org/a.tif?band={i}&sig=secret" for i in (1, 2)]
    table = tmp_path / "table.csv"
    table.write_text(
        f"file,lat,lon\n{urls[0]},1,2\nhttps://x.org/a.tif,3,4\nhttps://x.org/b?sig=secret,5,6\n"
    )
    said: list[str] = []
    found = find_tiles([*urls, "https://x.org/c.tif?sig=secret"], table, {}, said.append)
    assert [tile.lat for tile in found] == ["1", "3", None]
    assert said == [
        f"{table} has no row for c.tif",
        f"{table} names https://x.org/b, not among the files",
    ]


def test_what_an_item_says_of_itself_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text(json.dumps(item("https://x.org/")))
    table = tmp_path / "table.csv"
    table.write_text(f"file,datetime\n{item()['id']},2022-02-02\n")
    common = {"datetime": "2021-01-01", "units": "dn"}
    [by_item] = find_tiles([tmp_path / "item.json"], None, common)
    assert (by_item.datetime, by_item.units) == (item()["properties"]["datetime"], "dn")
    [by_row] = find_tiles([tmp_path / "item.json"], table, common)
    assert by_row.datetime == "2022-02-02"


def test_folders_in_a_folder_are_looked_into(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    product = "LC08_L2SP_192027_20200802_20200914_02_T1"
    for name in (
        "b.tif",
        "2020/Salzburg Land/a.tif",
        "2020/.trash/c.tif",
        f"2021/{product}/{product}_SR_B1.TIF",
    ):
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_bytes(b"")
    (archive / "2020" / "again").symlink_to(archive)
    expected = ["2020/Salzburg Land/a.tif", f"2021/{product}", "b.tif"]
    assert [tile.path for tile in find_tiles([archive], None, {})] == [archive / name for name in expected]
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="in this folder or below"):
        find_tiles([tmp_path / "empty"], None, {})


@pytest.mark.parametrize("folders", ["", "2020/", "./archive/2020/", "{}/archive/2020/"])
def test_a_row_names_a_file_with_as_many_of_its_folders_as_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str
) -> None:
    """Tables are made beside an archive, in it, or elsewhere."""
    file = tmp_path / "archive" / "2020" / "a.tif"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_text(f"file,lat,lon\n{folders.format(tmp_path)}a.tif,1,2\n")
    monkeypatch.chdir(tmp_path)
    for given in (file, "archive", "archive/2020/a.tif", "archive/../archive/2020"):
        [tile] = find_tiles([given], table, {})
        assert tile.lat == "1"
    with pytest.raises(InputError, match=r"none of the files, b\.tif"):
        find_tiles([file.rename(file.with_name("b.tif"))], table, {})


def test_the_longest_name_of_a_table_wins(tmp_path: Path) -> None:
    files = [tmp_path / folder / "a.tif" for folder in ("2019", "2020")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_text("file,lat,lon\na.tif,1,2\n2020/a.tif,3,4\n")
    assert [tile.lat for tile in find_tiles([tmp_path], table, {})] == ["1", "3"]


def test_accents_of_names_are_the_same_however_they_are_spelt(tmp_path: Path) -> None:
    """A Mac spells ü with two characters, most others with one."""
    one, two = "Gr\u00fcnau.tif", "Gru\u0308nau.tif"
    (tmp_path / two).write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_text(f"file,lat,lon\n{one},1,2\n", encoding="utf-8")
    said: list[str] = []
    assert [tile.lat for tile in find_tiles([tmp_path], table, {}, said.append)] == ["1"]
    (tmp_path / one).write_bytes(b"")
    table.write_text(f"file,lat,lon\n{one},1,2\n{two},3,4\n", encoding="utf-8")
    if len(list(tmp_path.glob("*.tif"))) == 2:
        assert {tile.path: tile.lat for tile in find_tiles([tmp_path], table, {}, said.append)} == {
            tmp_path / one: "1",
            tmp_path / two: "3",
        }
    assert said == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x50\x41\x52\x31\x00\xff", "is no text in UTF-8 .*; expected a CSV file"),
        (b",file,lat\n0,a.tif,1\n", r"unknown: one without a name \(pandas writes its index so"),
        (b"file;lat;lon\na.tif;1;2\n", "commas have to separate them"),
        (b"file,lat,lon\n", "has no rows; expected one for each file"),
    ],
)
def test_a_table_of_another_kind(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=words):
        find_tiles([tmp_path], table, {})
