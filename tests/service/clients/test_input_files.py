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
