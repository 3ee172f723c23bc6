"""STAC Items: which of their assets become which part, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from service.app import create_app
from service.cli import app
from service.client import Client, UnusableTileError
from service.clients import stac
from service.clients.given_tiles import as_tiles
from service.clients.in_process import InProcessTransport
from service.settings import Settings
from tests.service import deliveries
from tests.service.fake_engine import FakeEngine
from tests.service.http.file_host import FileHost, file_host

KEYS = {
    "coastal": "SR_B1", "blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir08": "SR_B5",
    "swir16": "SR_B6", "swir22": "SR_B7", "qa_pixel": "QA_PIXEL", "MTL.txt": "MTL",
}  # fmt: skip
PARTS = deliveries.parts(metadata=deliveries.mtl(), flags=np.full((41, 41), deliveries.CLEAR))


def item(place: str = "", **changes: Any) -> dict[str, Any]:
    """An Item as catalogues have them; `place` stands before the names of its files."""
    assets = {key: {"href": place + PARTS[part][0], "type": "image/tiff"} for key, part in KEYS.items()}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": deliveries.PRODUCT,
        "geometry": None,
        "properties": {"datetime": "2020-08-02T09:58:12Z", "platform": "landsat-8"},
        "links": [],
        "assets": {"thumbnail": {"href": "https://example.org/t.jpg"}, **assets},
        **changes,
    }


def with_red(red: Any, **changes: Any) -> dict[str, Any]:
    """An Item with that asset."""
    given = item("https://example.org/", **changes)
    return given | {"assets": given["assets"] | {"red": red}}


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as host:
        host.files |= dict(PARTS.values())
        yield host


def test_assets_become_parts_of_a_delivery() -> None:
    [tile] = stac.tiles(item("https://example.org/c2l2/"))
    assert tile.id == deliveries.PRODUCT
    assert tile.datetime == "2020-08-02T09:58:12Z"
    assert tile.data == {
        part: f"https://example.org/c2l2/{name}" for part, (name, _) in PARTS.items() if part != "MTL"
    }


def test_mtl_tells_the_time_that_an_item_does_not() -> None:
    [tile] = stac.tiles(item("https://example.org/", properties={"datetime": None}))
    assert isinstance(tile.data, dict)
    assert tile.data["MTL"] == f"https://example.org/{PARTS['MTL'][0]}"
    assert tile.datetime is None


def test_relative_places_refer_to_the_items_own(tmp_path: Path) -> None:
    [tile] = stac.tiles(item("./"), tmp_path / "item.json")
    assert isinstance(tile.data, dict)
    assert Path(tile.data["SR_B1"]) == tmp_path / PARTS["SR_B1"][0]
    link = {"rel": "self", "href": "https://example.org/items/one.json"}
    [tile] = stac.tiles(item("../data/", links=[link]))
    assert isinstance(tile.data, dict)
    assert tile.data["SR_B1"] == f"https://example.org/data/{PARTS['SR_B1'][0]}"


def test_a_collection_has_a_tile_for_each_item() -> None:
    items = [item("https://example.org/a/", **changes) for changes in ({}, {"id": "b"}, {"id": None})]
    collection = {"type": "FeatureCollection", "features": items}
    assert [tile.id for tile in stac.tiles(collection)] == [deliveries.PRODUCT, "b", "without id"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (item("s3://usgs-landsat/"), "s3://usgs-landsat"),
        (item(assets={"blue": {"href": "/b.tif"}}), "coastal, green"),
        (item(assets=None), "Feature with assets"),
        ({"type": "Feature"}, "Feature with assets"),
        ({"type": "Catalog", "stac_version": "1.0.0"}, "'Catalog' came"),
        ({"type": "FeatureCollection", "features": None}, "array"),
        ({"type": "FeatureCollection", "features": [None]}, "'None' came"),
        ({"type": "FeatureCollection", "features": [{"type": "FeatureCollection", "features": []}]}, "came"),
        *((with_red(red), "asset red: the file is at") for red in (None, {}, {"href": None}, {"href": 5})),
        (with_red({"href": "https"}), "asset red: the file is at"),
        # Anybody's Item: nothing of this machine is sent because of it.
        (with_red({"href": "/etc/passwd"}), "the file is at '/etc/passwd'; expected https"),
        (with_red({"href": "secret.tif"}), "the file is at"),
        (with_red({"href": "file:///etc/passwd"}), "the file is at"),
        (with_red({"href": "x.tif"}, links=[{"rel": "self", "href": "/etc/item.json"}]), "the file is at"),
    ],
)
def test_items_that_cannot_be_used(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UnusableTileError, match=said):
        as_tiles(given)


@pytest.mark.parametrize("links", [None, [None], [{"rel": "self", "href": None}], {"rel": "self"}])
@pytest.mark.parametrize("properties", [None, [], {}])
def test_what_an_item_needs_not_have(links: Any, properties: Any) -> None:
    [tile] = as_tiles(item("https://example.org/", links=links, properties=properties))
    assert tile.datetime is None


@pytest.mark.parametrize(
    "href",
    [
        "../secret.tif",
        "/etc/passwd",
        "a/../../secret.tif",
        "file:///etc/passwd",
        "file:../secret.tif",
        "a\0b",
    ],
)
def test_an_items_file_names_no_files_elsewhere_on_the_machine(href: str, tmp_path: Path) -> None:
    path = tmp_path / "items" / "item.json"
    path.parent.mkdir()
    path.write_text(json.dumps(with_red({"href": href})))
    with pytest.raises(UnusableTileError, match="expected https, or a path below its folder"):
        as_tiles(path)


@pytest.mark.parametrize("href", ["red.tif", "bands/red.tif"])
def test_links_beside_an_item_lead_to_no_files_elsewhere(href: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "secrets", tmp_path / "items"
    outside.mkdir()
    folder.mkdir()
    (outside / "red.tif").write_bytes(b"secret")
    (folder / "red.tif").symlink_to("../secrets/red.tif")
    (folder / "bands").symlink_to(outside)
    (path := folder / "item.json").write_text(json.dumps(with_red({"href": href})))
    with pytest.raises(UnusableTileError, match="which no link there leads out of"):
        as_tiles(path)


def test_links_beside_an_item_may_lead_to_files_below(tmp_path: Path) -> None:
    (folder := tmp_path / "items").mkdir()
    (folder / "B4.tif").write_bytes(b"red")
    (folder / "red.tif").symlink_to("B4.tif")
    (folder / "item.json").write_text(json.dumps(with_red({"href": "red.tif"})))
    (tmp_path / "here").symlink_to(folder)  # the user's own
    [tile] = as_tiles(tmp_path / "here" / "item.json")
    assert isinstance(tile.data, dict)
    assert Path(tile.data["SR_B4"]).read_bytes() == b"red"


@pytest.mark.parametrize("href", ["bands/red.tif", "./a/../bands/red.tif", "{folder}/bands/red.tif"])
def test_an_items_file_names_files_below_its_folder(href: str, tmp_path: Path) -> None:
    path = tmp_path / "item.json"
    for scheme in ("", "file://") if href.startswith("{") else ("",):
        path.write_text(json.dumps(with_red({"href": scheme + href.format(folder=tmp_path)})))
        [tile] = as_tiles(str(path))
        assert isinstance(tile.data, dict)
        assert tile.data["SR_B4"] == tmp_path / "bands" / "red.tif"


@pytest.mark.parametrize(
    "content", [None, "", "[" * 100_000, "{}", '{"type": "FeatureCollection", "features": []}']
)
def test_files_without_items(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "item.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UnusableTileError, match=r"item\.json"):
        as_tiles(path)


def test_a_mapping_that_is_no_delivery() -> None:
    for given in ({"SR_B1": None}, {"blue": "a.tif"}):
        with pytest.raises(UnusableTileError, match="a tile is a mapping with"):
            as_tiles(given)
    with pytest.raises(UnusableTileError, match="a tile is an empty mapping"):
        as_tiles({})


def test_a_client_takes_items(host: FileHost) -> None:
    settings = Settings(fetch_hosts=host.allowed)
    transport = InProcessTransport(settings, app=create_app(settings, FakeEngine()))
    linked = item(host.url(""))
    with Client("http://local", transport=transport) as client:
        [found] = client.embed(linked).results
        by_parts = client.embed({part: host.url(name) for part, (name, _) in PARTS.items()}).results[0]
        several = client.embed(
            [linked, host.url("missing.tif"), {"type": "FeatureCollection", "features": [linked]}]
        )
    assert found.source == deliveries.PRODUCT
    assert found.id == deliveries.PRODUCT
    assert found.fields["datetime"] == "2020-08-02T09:58:12Z"
    assert (by_parts.source, by_parts.values.shape) == (found.source, found.values.shape)
    assert [result.index for result in several.results] == [0, 2]
    assert [failure.index for failure in several.failures] == [1]


def test_commands_take_items_and_urls(host: FileHost, tmp_path: Path) -> None:
    deliveries.write(tmp_path, PARTS)
    (tmp_path / "local.json").write_text(json.dumps(item()))
    (tmp_path / "linked.json").write_text(json.dumps(item(host.url(""), id="linked")))
    (tmp_path / "other.json").write_text("{}")
    out = tmp_path / "out.ndjson"
    arguments = ["embed", str(tmp_path / "local.json"), str(tmp_path / "linked.json"), "-o", str(out), "-q"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    local, linked = map(json.loads, out.read_text().splitlines())
    assert (local["id"], linked["id"]) == (deliveries.PRODUCT, "linked")
    assert local["embedding"] == linked["embedding"]
    assert local["cloud_fraction"] == 0
    arguments = ["embed", host.url("missing.tif?sig=secret"), "-o", str(out), "-q"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "missing.tif" in result.stderr
    assert "fetch-failed" in result.stderr
    assert "secret" not in result.stderr
    # One URL that cannot be is no reason for the others not to come.
    urls = [
        "https://[x",
        "https://x.org:99999/",
        "https://*.org/a",
        "https://me:secret@x.org/a",
        "https://x/\udcff",
    ]
    result = CliRunner().invoke(app, ["embed", *urls, str(tmp_path / "local.json"), "-o", str(out), "-q"])
    assert "6 tiles, 5 failed; wrote" in result.stderr
    assert "secret" not in result.stderr
    result = CliRunner().invoke(app, ["embed", str(tmp_path / "other.json"), "-o", str(out)])
    assert result.exit_code == 1
    assert "no STAC Item" in result.stderr
