"""hf:// addresses of repositories and files, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import bundle
from model.bundle import BundleError
from model.hub import Address, HubError, fetch_bundle, fetch_file, is_address, parse


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://owner/name", Address("owner/name", None, None)),
        ("hf:/owner/name", Address("owner/name", None, None)),
        ("hf://owner/name@v1.0", Address("owner/name", None, "v1.0")),
        ("hf://owner/name@refs/pr/1", Address("owner/name", None, "refs/pr/1")),
        ("hf://o-1/n.a_me/a/b.pth@main", Address("o-1/n.a_me", "a/b.pth", "main")),
    ],
)
def test_addresses(source: str, expected: Address) -> None:
    assert parse(source) == expected
    assert parse(Path(source)) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://owner", "hf://owner/", "hf://owner/na me", "hf://owner/name@", "hf://owner/../etc/passwd",
     "hf://owner/name/../../x", "hf://owner/name/a@..", "hf://owner/name@a@b", "hf://ownér/name",
     "hf://" + "o" * 100 + "/name", "hf://owner/name\n"],
)  # fmt: skip
def test_what_is_no_address(source: str) -> None:
    assert is_address(source)
    with pytest.raises(HubError, match=r"expected hf://owner/name\[/file\]\[@revision\]"):
        parse(source)
    with pytest.raises(BundleError, match="is no address"):
        bundle.load(source)


def test_paths_are_no_addresses() -> None:
    assert not is_address(None)
    assert not is_address("some/folder")
    assert not is_address(Path("/hf"))


def test_a_file_is_no_bundle_and_a_repository_no_file() -> None:
    with pytest.raises(HubError, match="names a file"):
        fetch_bundle("hf://owner/name/file.pth")
    with pytest.raises(HubError, match="names no file"):
        fetch_file("hf://owner/name")
