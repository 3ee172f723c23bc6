"""Landsat as it is delivered: parts of a form, folders, MTL, QA_PIXEL, and landmoe stack."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from httpx import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from typer.testing import CliRunner

from model.bands import BANDS
from model.tile_errors import TileError
from service.cli import app as cli
from service.files import File
from service.rasters import delivery, mtl
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.deliveries import ACQUIRED, CIRRUS, CLEAR, CLOUD, FILL, PRODUCT

FRESH = {"Cache-Control": "no-cache"}


def send(client: TestClient, files: dict[str, tuple[str, bytes]], **data: str) -> Response:
    return client.post("/embed", files=files, data=data, headers=FRESH)


def flags(height: int = 41, width: int = 41) -> np.ndarray:
    return np.full((height, width), CLEAR, np.uint16)


def test_seven_parts_are_one_raster_with_time_and_place(client: TestClient) -> None:
    pixels = dn_pixels(seed=3)
    stacked = client.post(
        "/embed",
        content=geotiff(pixels, nodata=0),
        params={"datetime": ACQUIRED},
        headers=FRESH | {"Content-Type": "image/tiff"},
    ).json()["data"][0]
    response = send(client, deliveries.parts(pixels, metadata=deliveries.mtl()))
    assert response.status_code == 200, response.text
    item = response.json()["data"][0]
    assert item["source"] == PRODUCT
    assert item["datetime"] == ACQUIRED
    assert item["metadata_source"] == {"datetime": "file", "hour": "file", "location": "file"}
    assert "cloud_fraction" not in item
    same = ("embedding", "lat", "lon", "footprint", "crs", "units", "valid_fraction", "datetime")
    assert {name: item[name] for name in same} == {name: stacked[name] for name in same}


def test_surface_reflectance_of_collection_1_is_named_for_level_1(client: TestClient) -> None:
    times_10_000 = np.rint((dn_pixels() * 2.75e-5 - 0.2) * 10_000).astype(np.int16)
    name = "LC08_L1TP_192027_20160802_20170222_01_T1_sr_band{}.tif"
    files = {
        part: (name.format(part[-1]), data)
        for part, (_, data) in deliveries.parts(times_10_000, nodata=-9999).items()
    }
    response = send(client, files, units="reflectance_1e4")
    assert response.status_code == 200, response.text
    assert response.json()["data"][0]["warnings"] == []


def test_the_requests_datetime_wins_and_none_uses_none(client: TestClient) -> None:
    files = deliveries.parts(metadata=deliveries.mtl("xml"))
    item = send(client, files, datetime="2019-01-01").json()["data"][0]
    assert (item["datetime"], item["metadata_source"]["datetime"]) == ("2019-01-01", "request")
    item = send(client, files, datetime_source="none").json()["data"][0]
    assert (item["datetime"], item["metadata_source"]["datetime"]) == (None, "missing")


def test_clouds_and_fill_are_counted_and_warned_of(client: TestClient) -> None:
    qa = flags(40, 40)
    qa[:10] = CLOUD
    qa[10:20, :20] = CIRRUS
    qa[30:] = FILL
    item = send(client, deliveries.parts(dn_pixels(40, 40), flags=qa)).json()["data"][0]
    assert item["cloud_fraction"] == pytest.approx((400 + 200) / 1200)
    assert item["quality"]["fill"] == pytest.approx(0.25)
    assert item["quality"]["cloud"] == pytest.approx(0.25)
    assert item["quality"]["cirrus"] == pytest.approx(0.125)
    assert "cloudy" in {w["code"] for w in item["warnings"]}
    clear = send(client, deliveries.parts(flags=flags())).json()["data"][0]
    assert clear["cloud_fraction"] == 0
    assert clear["warnings"] == []


def test_too_cloudy_a_tile_is_refused_and_windows_are_skipped(client: TestClient) -> None:
    qa = flags(80, 120)
    qa[:40, :80] = CLOUD
    qa[40:, :10] = CLOUD
    files = deliveries.parts(dn_pixels(80, 120), flags=qa)
    response = send(client, files, fit="grid", max_cloud_fraction="0.3")
    assert response.json()["summary"] == {
        "tiles": 1, "windows": 6, "embedded": 4, "skipped_empty": 0, "failed": 0, "skipped_cloudy": 2,
    }  # fmt: skip
    assert [(i["row"], i["col"]) for i in response.json()["data"]] == [(0, 2), (1, 0), (1, 1), (1, 2)]
    assert [i["cloud_fraction"] for i in response.json()["data"]] == [0, 0.25, 0, 0]
    tile = send(client, deliveries.parts(flags=flags() | np.uint16(CLOUD)), max_cloud_fraction="0.5")
    assert tile.json()["type"].endswith("too-cloudy")
    without = send(client, deliveries.parts(), max_cloud_fraction="0.5")
    assert without.json()["type"].endswith("bad-parameter")
    assert "QA_PIXEL" in without.json()["detail"]


@pytest.mark.parametrize("kind", ["txt", "xml", "json"])
def test_mtl_in_all_its_forms(kind: str) -> None:
    found = mtl.parse(deliveries.mtl(kind))
    assert (found.spacecraft, found.sensor, found.product) == ("LANDSAT_8", "OLI_TIRS", PRODUCT)
    assert found.acquired is not None
    assert found.acquired.text == ACQUIRED
    day = mtl.parse(deliveries.mtl(kind, SCENE_CENTER_TIME=None)).acquired
    assert day is not None
    assert day.text == "2020-08-02"
    assert mtl.parse(deliveries.mtl(kind, DATE_ACQUIRED=None)).acquired is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b"<a>",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<a>" * 100 + b"</a>" * 100,
        deliveries.mtl(DATE_ACQUIRED="yesterday"),
        b"x" * (mtl.MAX_BYTES + 1),
    ],
)
def test_a_useless_mtl_is_refused(text: bytes) -> None:
    with pytest.raises(TileError, match="MTL"):
        mtl.parse(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_mtl_breaks_the_reader(data: bytes) -> None:
    with contextlib.suppress(TileError):
        mtl.parse(data)


def test_a_folder_is_found_and_stacked(tmp_path: Path) -> None:
    pixels = dn_pixels(100, 90)
    folder = deliveries.write(
        tmp_path / "product", deliveries.parts(pixels, flags=flags(100, 90), metadata=deliveries.mtl())
    )
    (folder / "notes.txt").write_text("nothing")
    assert delivery.is_delivery(folder)
    assert list(delivery.find(folder)) == [*BANDS, "QA_PIXEL", "MTL"]
    result = CliRunner().invoke(cli, ["stack", str(folder), "-o", str(tmp_path / "scene.tif")])
    assert result.exit_code == 0, result.output
    assert "2020-08-02T09:58:12" in result.output
    with rasterio.open(tmp_path / "scene.tif") as scene:
        assert np.array_equal(scene.read(), pixels)
        assert scene.descriptions == BANDS
        assert scene.crs.to_string() == "EPSG:32633"
        assert scene.nodata == 0
        assert scene.tags()["TIFFTAG_DATETIME"] == "2020:08:02 09:58:12"
        assert scene.transform == rasterio.open(delivery.find(folder)["SR_B1"]).transform
    assert sorted(file.name for file in tmp_path.iterdir()) == ["product", "scene.tif"]


def test_a_stack_may_have_the_flags(client: TestClient, tmp_path: Path) -> None:
    pixels, judged = dn_pixels(120, 90), flags(120, 90)
    judged[0, :5] = 0  # nothing there
    files = deliveries.parts(pixels, flags=judged, metadata=deliveries.mtl())
    folder = deliveries.write(tmp_path / "product", files)
    path = tmp_path / "scene.tif"
    result = CliRunner().invoke(cli, ["stack", str(folder), "-o", str(path), "--qa-pixel"])
    assert result.exit_code == 0, result.output
    assert "and QA_PIXEL" in result.output
    with rasterio.open(path) as scene:
        assert scene.descriptions == (*BANDS, "QA_PIXEL")
        assert np.array_equal(scene.read()[:7], pixels)
        assert np.array_equal(scene.read(8), np.where(judged == 0, deliveries.FILL, judged))
    for fit in ("resize", "grid"):
        given = {"fit": fit}  # when it was taken, MTL and the stack's own tag say
        delivered = client.post("/embed", files=files, data=given).json()["data"]
        stacked = client.post("/embed", files={"tile": path.read_bytes()}, data=given).json()["data"]
        for item, expected in zip(stacked, delivered, strict=True):
            assert item["datetime"] is not None
            for name in (
                "embedding",
                "cloud_fraction",
                "quality",
                "valid_fraction",
                "datetime",
                "metadata_source",
            ):
                assert item[name] == expected[name], name


def test_a_stack_keeps_what_values_mean(client: TestClient, tmp_path: Path) -> None:
    # Reflectance times 40,000: as large as DN, which it would be taken for without its tags.
    pixels = (dn_pixels() * 2.75e-5 - 0.2) * 40_000
    files = deliveries.parts(pixels.astype(np.uint16), flags=flags(), scales=[2.5e-5], offsets=[0.05])
    folder = deliveries.write(tmp_path / "product", files)
    [expected] = client.post("/embed", files=files).json()["data"]
    for options in ([], ["--qa-pixel"]):
        path = tmp_path / "scene.tif"
        result = CliRunner().invoke(cli, ["stack", str(folder), "-o", str(path), *options])
        assert result.exit_code == 0, result.output
        [item] = client.post("/embed", files={"tile": path.read_bytes()}).json()["data"]
        assert item["units"] == expected["units"] == "scale_offset"
        assert item["embedding"] == expected["embedding"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"flags": None}, "no file named …_QA_PIXEL.TIF"), ({"pixels": dn_pixels().astype(np.int16)}, "int16")],
)
def test_flags_that_cannot_be_in_a_stack(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    folder = deliveries.write(tmp_path / "product", deliveries.parts(**{"flags": flags()} | changed))
    result = CliRunner().invoke(cli, ["stack", str(folder), "-o", str(tmp_path / "scene.tif"), "--qa-pixel"])
    assert result.exit_code == 1
    assert words in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["product"]


def test_a_stack_is_no_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = deliveries.write(tmp_path / "product", deliveries.parts())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["stack", str(folder), "-o", "-"])
    assert result.exit_code == 1
    assert "expected -o FILE" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["product"]


def test_folders_that_are_no_delivery(tmp_path: Path) -> None:
    assert not delivery.is_delivery(tmp_path)
    with pytest.raises(delivery.DeliveryError, match="no file named"):
        delivery.find(tmp_path)
    deliveries.write(tmp_path, {n: file for n, file in deliveries.parts().items() if n != "SR_B2"})
    with pytest.raises(delivery.DeliveryError, match="lacks SR_B2"):
        delivery.find(tmp_path)
    other = PRODUCT.replace("192027", "001001")
    deliveries.write(tmp_path, deliveries.parts(product=other))
    with pytest.raises(delivery.DeliveryError, match="the products"):
        delivery.load(tmp_path)
    output = tmp_path / "scene.tif"
    result = CliRunner().invoke(cli, ["stack", str(tmp_path), "-o", str(output)])
    assert result.exit_code == 1
    assert not output.exists()


def test_a_loaded_delivery_is_that_of_the_folder(tmp_path: Path) -> None:
    folder = deliveries.write(tmp_path, deliveries.parts(flags=flags(), metadata=deliveries.mtl("json")))
    loaded = delivery.load(folder)
    assert loaded.source == PRODUCT
    assert [file.source for file in loaded.bands] == [f"{PRODUCT}_{band}.TIF" for band in BANDS]
    assert isinstance(loaded.qa_pixel, File)


def test_blank_fields_of_a_form_are_no_delivery(client: TestClient) -> None:
    """What a page sends for the file inputs that nobody filled in: blank texts, or files without a name."""
    blank = dict.fromkeys([*BANDS, "QA_PIXEL", "MTL"], "")
    assert client.post("/embed", files={"tile": geotiff()}, data=blank).status_code == 200
    empty = [(name, ("", b"")) for name in blank]
    assert client.post("/embed", files=[("tile", ("a.tif", geotiff())), *empty]).status_code == 200
    text = client.post("/embed", files={"tile": geotiff()}, data={"SR_B1": "x.tif"})
    assert text.json()["type"].endswith("missing-tile")


def test_mtl_may_be_a_text_field(client: TestClient) -> None:
    response = client.post("/embed", files=deliveries.parts(), data={"MTL": deliveries.mtl().decode()})
    assert response.json()["data"][0]["datetime"] == ACQUIRED
    large = client.post("/embed", files=deliveries.parts(metadata=b"x" * 2_000_000))
    assert "MTL" in large.json()["detail"]
