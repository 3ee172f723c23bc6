"""A bundle is written whole or not at all, and never over what is not one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model import bundle, bundle_writer
from model.bundle import BundleError
from tests.model.written_bundle import write


def test_write_replaces_a_bundle_and_uses_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "encoder.fp32.onnx").write_bytes(b"damaged")
    assert write(folder, version="0.2.0").version == "0.2.0"
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty").path == tmp_path / "empty"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "empty"]


@pytest.mark.parametrize("name", [".git", "probes/.env"])
def test_hidden_files_are_not_lost_when_a_bundle_is_written_anew(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(BundleError, match="a hidden file"):
        bundle_writer.rewrite(bundle.load(folder), card="another")
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    assert bundle_writer.rewrite(bundle.load(folder), card="another").card == "another"


def test_what_a_cache_holds_as_links_is_not_written_anew(folder: Path, tmp_path: Path) -> None:
    kept = (folder / "card.md").rename(tmp_path / "blob")
    (folder / "card.md").symlink_to(kept)
    with pytest.raises(BundleError, match="a link"):
        bundle_writer.rewrite(bundle.load(folder), card="another")


def test_write_leaves_anything_else_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "bundle.json").write_text('{"format": "of another program"}')
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(folder)
    (folder / "notes.txt").write_text("of somebody")
    for name in ("thesis", "foreign", "file", "link", "bundle"):
        with pytest.raises(BundleError, match="is not a bundle; it is left alone"):
            write(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"loss": float("nan")}}, "cannot be written as JSON"),
        ({"training": {"path": Path()}}, "cannot be written as JSON"),
        ({"name": "two words"}, "name is 'two words'"),
        ({"files": {}}, "expected card"),
    ],
)
def test_write_that_fails_keeps_what_was_there(folder: Path, change: dict[str, Any], message: str) -> None:
    before = bundle.load(folder)
    with pytest.raises(BundleError, match=message):
        write(folder, **change)
    assert bundle.load(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]
