"""docs/http.md names every endpoint, header and kind of error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.app import create_app
from service.errors import PROBLEMS
from service.http.deadline import HEADER
from service.http.guard import API_KEY, EXPOSED
from service.parameters import PER_TILE

PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text()


def test_every_kind_of_error_is_listed_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \| \S", PAGE, re.MULTILINE)
    assert [(int(status), code) for status, code in rows] == [
        (row.status, code) for code, row in PROBLEMS.items()
    ]


@pytest.mark.parametrize("name", sorted({*EXPOSED, API_KEY, HEADER} - {"Content-Disposition"}))
def test_every_header_is_listed(name: str) -> None:
    assert re.search(rf"^\| `{name}` \| \S", PAGE, re.MULTILINE)


def test_every_endpoint_is_listed() -> None:
    for path in create_app().openapi()["paths"]:
        assert re.search(rf"`(GET |POST )?{path}[`?]", PAGE), path


def test_every_parameter_of_a_tile_is_listed() -> None:
    [said] = re.findall(r"What is said of a tile \((.*?)\)", PAGE, re.DOTALL)
    assert sorted(re.findall(r"`(\w+)`", said)) == sorted(PER_TILE)
