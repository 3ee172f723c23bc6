"""Tiles that a service takes, but not all of them in one request, which is told when they are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.app import create_app
from service.cli import app
from service.client import Client
from service.clients.in_process import InProcessTransport
from service.clients.results import Embedding, Failure
from service.clients.tiles import Tile
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import FakeEngine
from tests.service.http.file_host import FileHost, file_host

TILES = [geotiff(dn_pixels(seed=number)) for number in range(7)]
MAX_MB = 0.085  # three of them, and not four


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as host:
        host.files |= {f"{number}.tif": tile for number, tile in enumerate(TILES)}
        host.files["large.tif"] = bytes(int(MAX_MB * 1_000_000) + 1)
        yield host


def local(host: FileHost) -> Client:
    settings = Settings(fetch_hosts=host.allowed, max_upload_mb=MAX_MB)
    return Client(
        "http://local", transport=InProcessTransport(settings, app=create_app(settings, FakeEngine()))
    )


def test_linked_files_are_divided_until_they_are_taken(host: FileHost) -> None:
    links: list[Any] = [host.url(f"{number}.tif") for number in range(7)]
    links.insert(4, host.url("large.tif"))
    done: list[tuple[int, int]] = []
    with local(host) as client:
        uploaded = client.embed(TILES).array()
        answer = client.embed(links, keep_going=True, progress=lambda *now: done.append(now))
    assert [type(item) for item in answer] == [Embedding] * 4 + [Failure] + [Embedding] * 3
    assert [item.index for item in answer] == list(range(8))
    assert [item.id for item in answer] == [str(number) for number in range(8)]
    [failure] = answer.failures
    assert (getattr(failure.error, "status", None), answer.summary["embedded"]) == (413, 7)
    assert [item.values.tolist() for item in answer.results] == uploaded.tolist()
    assert done[-1] == (8, 8)


def test_what_a_form_adds_to_files_may_be_too_much(host: FileHost) -> None:
    """The files alone are not, which is all that is known before."""
    said = [Tile(data=tile, id="x" * 500) for tile in TILES[:3]]
    most = sum(map(len, TILES[:3])) + 100
    settings = Settings(max_upload_mb=most / 1_000_000)
    transport = InProcessTransport(settings, app=create_app(settings, FakeEngine()))
    with Client("http://local", transport=transport) as client:
        assert client.embed(said).array().shape[0] == 3


@pytest.mark.parametrize("kind", ["ndjson", "npy", "parquet", "json"])
def test_a_command_divides_them_too(
    host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LANDMOE_MAX_UPLOAD_MB", str(MAX_MB))
    out, whole = tmp_path / f"out.{kind}", tmp_path / f"whole.{kind}"
    links = [host.url(f"{number}.tif") for number in range(7)]
    result = CliRunner().invoke(app, ["embed", *links, "-o", str(out), "-q"])
    assert result.exit_code == 0, result.stderr
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
    monkeypatch.delenv("LANDMOE_MAX_UPLOAD_MB")
    assert CliRunner().invoke(app, ["embed", *links, "-o", str(whole), "-q"]).exit_code == 0
    if kind == "ndjson":
        rows = [json.loads(line) | {"cached": None} for line in out.read_text().splitlines()]
        assert rows == [json.loads(line) | {"cached": None} for line in whole.read_text().splitlines()]
    elif kind != "parquet":  # whose row groups are those of the answers
        assert out.read_bytes() == whole.read_bytes()
