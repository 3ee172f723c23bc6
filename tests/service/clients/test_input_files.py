"""What a command line names: folders, tables, and files that are not what they seem."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.clients.errors import InputError
from service.clients.input_files import find_tiles


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
