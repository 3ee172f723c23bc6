"""`landmoe embed` and `landmoe classify` as a person calls them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from model.bands import BANDS
from service.cli import app
from service.clients import merge
from service.clients.tiles import Tile
from service.parameters import PER_TILE
from tests.rasters import dn_pixels, geotiff
from tests.service.server_process import ServerProcess, run

pytestmark = pytest.mark.server
FORMATS = ("json", "ndjson", "npy", "geojson", "parquet")


def call(*arguments: str) -> Result:
    """The command inside this process: ten times faster than another process."""
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 tiles, more than go in a request, one of them broken."""
    folder = tmp_path_factory.mktemp("tiles")
    for number in range(35):
        (folder / f"{number:02}.tif").write_bytes(geotiff(dn_pixels(seed=number)))
    (folder / "07.tif").write_bytes(b"broken")
    (folder / "notes.txt").write_text("no tile")
    return folder


@pytest.fixture(scope="module")
def outputs(server: ServerProcess, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a running service gives, in each format."""
    found = {}
    for kind in FORMATS:
        found[kind] = tmp_path_factory.mktemp("out") / f"out.{kind}"
        options = ("-o", str(found[kind]), "--url", server.url, "--no-cache", "--datetime", "2020-08-02")
        done = call("embed", str(folder), *options)
        assert done.exit_code == 1, done.stderr
        assert "07.tif: the 6 bytes begin with b'broken'" in done.stderr
        assert "35 tiles, 1 failed; wrote" in done.stderr
    return found


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_warnings_and_left_out_windows_are_told(tmp_path: Path, suffix: str) -> None:
    pixels = dn_pixels(80, 120)
    pixels[:, :40, :80] = 0
    (tmp_path / "scene.tif").write_bytes(geotiff(pixels, pixel_size=60))
    wanted = ("--fit", "grid", "-o", str(tmp_path / f"out.{suffix}"))
    told = call("embed", str(tmp_path / "scene.tif"), *wanted).stderr
    assert "1 tile, 6 windows (2 empty, left out); wrote" in told
    assert "warnings: unusual-pixel-size (4)" in told
    assert "warnings" not in call("embed", str(tmp_path / "scene.tif"), "--quiet", *wanted).stderr


@pytest.mark.parametrize("suffix", ["npy", "parquet", "ndjson"])
def test_scenes_of_which_nothing_is_left(tmp_path: Path, suffix: str) -> None:
    clouds = np.full((1, 80, 80), 1 << 3, np.uint16)
    scene = geotiff(np.concatenate([dn_pixels(80, 80), clouds]), descriptions=(*BANDS, "QA_PIXEL"))
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(scene)
    output = tmp_path / f"out.{suffix}"
    done = call("embed", str(tmp_path), "--fit", "grid", "-p", "max_cloud_fraction=0.3", "-o", str(output))
    assert done.exit_code == 0, done.exception
    assert "2 tiles, 8 windows (8 cloudy, left out); wrote" in done.stderr
    if suffix == "npy":
        assert np.load(output).shape == (0, 144)


def plain(kind: str, path: Path) -> Any:
    """Content without what differs from run to run: ids of requests."""
    if kind == "npy":
        return np.load(path).tobytes()
    if kind == "parquet":
        return pq.read_table(path).to_pylist()

    def cleaned(value: Any) -> Any:
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        if isinstance(value, dict):
            return {name: cleaned(item) for name, item in value.items() if name != "request_id"}
        return value

    return cleaned([orjson.loads(line) for line in path.read_bytes().splitlines()])


def test_every_format_has_the_same_numbers(outputs: dict[str, Path], folder: Path) -> None:
    values = np.load(outputs["npy"])
    assert values.shape[0] == 35
    assert np.isnan(values[7]).all()
    good = np.delete(np.arange(35), 7)
    assert np.isfinite(values[good]).all()

    body = json.loads(outputs["json"].read_text())
    assert [item["index"] for item in body["data"]] == list(range(35))
    assert body["summary"] == {"tiles": 35, "windows": 35, "embedded": 34, "skipped_empty": 0, "failed": 1}
    assert body["data"][7]["error"]["status"] == 415
    assert body["data"][33]["id"] == str(folder / "33.tif")
    assert [item["id"] for item in body["data"]] == [str(folder / f"{n:02}.tif") for n in range(35)]
    assert body["data"][7]["source"] == "07.tif"
    lines = [json.loads(line) for line in outputs["ndjson"].read_text().splitlines()]
    features = json.loads(outputs["geojson"].read_text())["features"]
    frame = geopandas.read_parquet(outputs["parquet"])
    assert frame.crs.to_epsg() is None or frame.crs.to_epsg() == 4326
    assert list(frame["index"]) == list(range(35))
    assert frame["error"].notna().sum() == 1
    assert [line["id"] for line in lines] == [item["id"] for item in features] == list(frame["id"])
    assert list(frame["id"]) == [item["id"] for item in body["data"]]
    assert frame["source"][7] == "07.tif"
    for row in good:
        for other in (
            body["data"][row]["embedding"],
            lines[row]["embedding"],
            features[row]["properties"]["embedding"],
            frame["embedding"][row],
        ):
            assert (np.asarray(other, np.float32) == values[row]).all()


def test_parquet_has_few_groups_of_rows(outputs: dict[str, Path]) -> None:
    """Not one for each request: readers, and the file's end, are slow and large with hundreds of them."""
    file = pq.ParquetFile(outputs["parquet"])
    assert (file.metadata.num_rows, file.num_row_groups) == (35, 1)


def test_rows_and_files_that_do_not_belong_together_are_said(
    server: ServerProcess, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text("file,datetime\n01.tif,2020-08-02\nelsewhere.tif,2020-08-02\n")
    files = [str(folder / name) for name in ("01.tif", "02.tif")]
    done = call("embed", *files, "--url", server.url, "--metadata", str(table), "-q")
    assert done.exit_code == 0
    assert "tiles.csv has no row for 02.tif" in done.stderr
    assert "tiles.csv names elsewhere.tif, not among the files" in done.stderr
    done = call("embed", files[1], "--url", server.url, "--metadata", str(table))
    assert done.exit_code == 1
    assert "names 01.tif, elsewhere.tif, and none of the files, 02.tif" in done.stderr


def test_one_kind_of_failure_does_not_hide_the_others(server: ServerProcess, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"a{number:02}.tif").write_bytes(b"broken")
    (tmp_path / "b.tif").write_bytes(geotiff(dn_pixels(80, 80)))
    (tmp_path / "c.tif").write_bytes(geotiff(dn_pixels()))
    done = call("embed", str(tmp_path), "--url", server.url, "-o", str(tmp_path / "out.npy"), "-q")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert [line for line in lines if "b.tif: the raster is 80 x 80 px" in line]
    assert lines[-2:] == [
        "landmoe: failures: not-a-tiff (60), wrong-size (1); 25 of each at most are shown",
        f"landmoe: 62 tiles, 61 failed; wrote {tmp_path / 'out.npy'}",
    ]
    assert len(lines) == 25 + 1 + 2


def test_probabilities_as_an_array(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    """Of many tiles, one of which is broken, and of one."""
    array, table = tmp_path / "out.npy", tmp_path / "out.parquet"
    for output in (array, table):
        done = call("classify", str(folder), "-o", str(output), "--url", server.url)
        assert done.exit_code == 1
        assert "07.tif: the 6 bytes begin with b'broken'" in done.stderr
    frame = geopandas.read_parquet(table)
    labels = json.loads(pq.read_metadata(table).metadata[b"emb"])["labels"]
    assert np.array_equal(np.load(array), frame[labels].to_numpy(np.float32), equal_nan=True)
    assert np.isnan(np.load(array)).any(axis=1).tolist() == [n == 7 for n in range(35)]
    done = call("classify", str(folder / "03.tif"), "-o", str(array), "--url", server.url)
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(np.load(array), frame[labels].to_numpy(np.float32)[3:4])


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_in_process_gives_the_same(outputs: dict[str, Path], folder: Path, kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    done = run("embed", str(folder), "-o", str(output), "--no-cache", "--datetime", "2020-08-02")
    assert done.returncode == 1
    assert plain(kind, output) == plain(kind, outputs[kind])


def test_a_single_tile_on_standard_output(server: ServerProcess, folder: Path) -> None:
    done = call("embed", str(folder / "00.tif"), "--url", server.url, "--pooling", "cls", "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["pooling"] == "cls"


def test_a_table_says_what_is_known_of_each(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text(f"file,id,datetime,lat,lon\n01.tif,one,2020-08-02,,\n{folder}/02.tif,two,,1.5,2.5\n")
    files = [str(folder / name) for name in ("01.tif", "02.tif", "03.tif")]
    done = call("embed", *files, "--url", server.url, "--metadata", str(table), "--datetime", "2021-01-01")
    one, two, three = json.loads(done.stdout)["data"]
    assert done.stderr.endswith("3 tiles; wrote to standard output\n")
    assert (one["id"], one["datetime"]) == ("one", "2020-08-02")
    assert (two["id"], two["lat"], two["datetime"]) == ("two", 1.5, "2021-01-01")
    assert (three["id"], three["datetime"]) == (files[2], "2021-01-01")


def test_a_scene_is_the_service_s_own_answer(server: ServerProcess, tmp_path: Path) -> None:
    scene, output = tmp_path / "scene.tif", tmp_path / "out.npy"
    scene.write_bytes(geotiff(dn_pixels(100, 90)))
    done = call(
        "embed", str(scene), "--fit", "grid", "--stride", "25", "-o", str(output), "--url", server.url
    )
    assert done.exit_code == 0, done.stderr
    assert np.load(output).shape == (9, 144)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.tif"], "no such file"),
        (["{folder}/01.tif", "-o", "x.xyz"], "expected one of .parquet"),
        (["{folder}/01.tif", "--url", "nonsense"], "nonsense"),
        (["{folder}/01.tif", "--url", "{url}", "-p", "poling"], "NAME=VALUE"),
        (["{folder}/01.tif", "--url", "{url}", "-p", "poling=x"], "unknown parameter"),
        (["{folder}/01.tif", "--url", "{url}", "-p", "format=npy"], "--format"),
        (["{folder}/01.tif", "--url", "{url}", "-o", "{folder}/none/x.npy"], "there is no folder"),
        (["{folder}/01.tif", "{folder}/02.tif", "--url", "{url}", "-o", "x.tif"], "no format of /embed"),
        (["{folder}/01.tif", "-o", "{folder}"], "--format"),
        (["{folder}/01.tif", "--format", "json", "-o", "{folder}"], "is a folder"),
        (["{folder}/07.tif", "--url", "{url}"], "nothing was written"),
        (["{folder}/01.tif", "--metadata", "{folder}/notes.txt"], "column"),
    ],
)
def test_what_cannot_be_done(server: ServerProcess, folder: Path, arguments: list[str], words: str) -> None:
    done = call("embed", *(text.format(folder=folder, url=server.url) for text in arguments))
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_what_the_service_takes_of_a_tile_a_client_s_has() -> None:
    assert set(Tile.__dataclass_fields__) >= PER_TILE


@pytest.mark.parametrize("said", ["option", "column"])
def test_a_value_for_nothing_is_an_option_and_a_column(
    server: ServerProcess, tmp_path: Path, said: str
) -> None:
    pixels = dn_pixels(40, 40)
    pixels[:, :20] = 65535
    (tmp_path / "a.tif").write_bytes(geotiff(pixels))
    (tmp_path / "said.csv").write_text("file,nodata\na.tif,65535\n")
    options = ["--nodata", "65535"] if said == "option" else ["--metadata", str(tmp_path / "said.csv")]
    done = call("embed", str(tmp_path / "a.tif"), "--url", server.url, *options)
    assert done.exit_code == 0, done.stderr
    [item] = json.loads(done.stdout)["data"]
    assert item["valid_fraction"] == 0.5
    done = call("embed", str(tmp_path / "a.tif"), "--url", server.url, "--nodata", "-x")
    assert done.exit_code == 1
    assert "nodata is '-x': expected a number, or 'none'" in done.stderr


def test_parquet_rows_of_requests_in_which_nothing_succeeded(outputs: dict[str, Path]) -> None:
    merger, out = merge.merger("parquet", "/embed", scenes=False), io.BytesIO()
    merger.begin(out, iter([outputs["parquet"].read_bytes()]))
    error = {"type": "urn:landmoe:problem:empty-tile", "detail": "nothing there"}
    failed = merger.add([{"index": 0, "id": "a", "error": error}], [0])
    assert [item["id"] for item in failed] == ["a"]
    merger.add(outputs["parquet"].read_bytes(), range(1, 36))
    merger.finish()
    table = pq.read_table(out)
    assert table["index"].to_pylist() == list(range(36))
    assert table["error"].to_pylist()[0] == "empty-tile: nothing there"
    summary = json.loads(pq.read_metadata(out).metadata[b"landmoe"])["summary"]
    assert summary["tiles"] == 36


@pytest.mark.parametrize("kind", FORMATS)
def test_a_name_that_is_no_utf8(server: ServerProcess, tmp_path: Path, kind: str) -> None:
    """Names of files are bytes, as archives of other systems bring them."""
    good, broken, output = tmp_path / "caf\udce9.tif", tmp_path / "\udcff.tif", tmp_path / f"out.{kind}"
    try:
        good.write_bytes(geotiff(dn_pixels()))
        broken.write_bytes(b"broken")
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    done = call("embed", str(good), str(broken), "-o", str(output), "--url", server.url)
    assert done.exit_code == 1
    assert "2 tiles, 1 failed; wrote" in done.stderr, done.exception
    if kind == "parquet":
        assert pq.read_table(output)["source"].to_pylist() == ["caf?.tif", "?.tif"]
    if kind == "ndjson":
        items = [json.loads(line) for line in output.read_text().splitlines()]
        assert [item["id"] for item in items] == [f"{tmp_path}/caf?.tif", f"{tmp_path}/?.tif"]


def test_an_engine_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither kernels nor ONNX Runtime are there: a plain installation, on an older CPU."""
    tile = tmp_path / "a.tif"
    tile.write_bytes(geotiff(dn_pixels()))
    monkeypatch.setenv("LANDMOE_KERNELS", "false")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = call("embed", str(tile), "-o", str(tmp_path / "out.npy"))
    assert done.exit_code == 1
    assert done.stderr == "landmoe: ONNX Runtime is not installed; install landmoe[cpu] or landmoe[gpu]\n"
    assert list(tmp_path.iterdir()) == [tile]
