"""Every `bench` command with tiny settings: it runs, and writes a record of the documented schema."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service import sample
from service.benchmarks import decode, engine
from service.benchmarks.gemm_peak import MatrixRateError
from service.cli import app
from service.rasters.geotiff import Reader
from tests.records import read_record


def _bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def _rows(record: dict[str, Any], **what: object) -> list[dict[str, list[float]]]:
    return [row["figures"] for row in record["rows"] if what.items() <= row["of"].items()]


@pytest.mark.slow
def test_engine(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    result = _bench("engine", "--quick", "--batch", "2", "--json", str(path))
    assert result.exit_code == 0, result.output
    record = read_record(path, "engine")
    [peak] = _rows(record, contender="matrix rate")
    assert peak["fp32_gflops"][0] > 0
    for contender in ("exact", "torch loop", "torch dense", "naive onnx"):
        [figures] = _rows(record, contender=contender, batch=2)
        assert figures["tiles_per_s"][0] > 0
        flops = record["settings"]["mflop_per_tile"] * 1e6
        share = figures["tiles_per_s"][0] * flops / (peak["fp32_gflops"][0] * 1e9)
        assert figures["share_of_gemm"][0] == pytest.approx(share, rel=1e-3)
    assert _rows(record, contender="torch loop", batch=2)[0]["times_loop"] == [1, 1, 1]
    assert all(
        ("share_of_torch" in row["figures"]) == row["of"]["contender"].startswith("torch")
        for row in record["rows"]
        if "batch" in row["of"]
    )
    assert _rows(record, contender="exact", batch=0)
    # The default bundle has one encoder: what it has not is named.
    assert "fast" in record["absent"] or _rows(record, contender="fast")


def test_a_share_is_of_the_products_right_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that gets slower from turn to turn: the rate and what is possible fall alike.
    speeds = [16.0, 8.0, 4.0, 2.0, 1.0]
    possible, of_torch = iter([10 * speed for speed in speeds]), iter([5 * speed for speed in speeds])
    rates = iter([{"tiles_per_s": 1000 * speed, "p50_ms": 1 / speed} for speed in speeds])
    monkeypatch.setattr(engine, "rate", lambda *_: next(rates))
    batch = (np.zeros((2, 7, 40, 40), np.uint16), np.zeros((2, 4, 2), np.float32))
    products = {"share_of_gemm": lambda: next(possible), "share_of_torch": lambda: next(of_torch)}
    figures = engine.beside(lambda *_: np.zeros(1, np.float32), batch, 0.3, products, mflop=5.0)
    shares = {"share_of_gemm": pytest.approx(0.5), "share_of_torch": pytest.approx(1.0)}
    assert figures == {"tiles_per_s": 4000.0, "p50_ms": 0.25} | shares


def test_engine_without_torch_says_what_is_absent_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "engine.json"
    result = _bench("engine", "--quick", "--batch", "1", "--json", str(path))
    assert result.exit_code == 0, result.output
    absent = read_record(path, "engine")["absent"]
    for contender in ("torch loop", "torch dense", "naive onnx"):
        assert "pip install 'landmoe[train]'" in absent[contender]
        assert f"not measured: {contender}" in result.output


def test_decode(tmp_path: Path) -> None:
    path = tmp_path / "decode.json"
    result = _bench("decode", "--quick", "--json", str(path))
    assert result.exit_code == 0, result.output
    record = read_record(path, "decode")
    for layout in decode.LAYOUTS:
        for reader in ("plain", "rasterio", "rasterio, naive"):
            [figures] = _rows(record, reader=reader, layout=layout)
            assert figures["us_per_tile"][0] >= figures["us_best"][0] > 0
        assert _rows(record, reader="rasterio", layout=layout)[0]["times_rasterio"] == [1, 1, 1]
    assert _rows(record, reader="tifffile", layout="strips")
    assert "imagecodecs" in record["absent"].get("tifffile, strips, LZW", "imagecodecs")


def test_all_that_decodes_gives_the_same_place_and_pixels() -> None:
    """Else it is not the same work that is compared."""
    tifffile = decode._tifffile(import_module("tifffile"))
    for layout, creation in decode.LAYOUTS.items():
        data = decode._written(creation)
        pixels, crs, (lat, lon) = decode._gdal(data)
        assert crs == sample.CRS
        np.testing.assert_array_equal(pixels, sample.pixels())
        others = [decode._naive(data)]
        if "LZW" not in layout:
            others.append(tifffile(data))
        for other, said, centre in others:
            np.testing.assert_array_equal(other, pixels)
            assert str(said).endswith("32633")
            assert centre == pytest.approx((lon, lat))
        plain, said, centre = decode._plain(data)
        np.testing.assert_array_equal(plain, pixels)
        assert (said, centre) == (crs, (lat, lon))
        with Reader(data, whole=True) as reader:  # by now the CRS is known
            assert reader.plain


@pytest.mark.slow
@pytest.mark.server
def test_service(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    result = _bench("service", "--quick", "--connections", "2", "--json", str(path))
    assert result.exit_code == 0, result.output
    record = read_record(path, "service")
    [alone] = _rows(record, server="engine alone")
    for cache, tiles in (("bypassed", 1), ("hit", 1), ("bypassed", 16), ("hit", 16)):
        [figures] = _rows(record, server="landmoe", cache=cache, tiles=tiles, connections=2)
        assert figures["tiles_per_s"][0] == pytest.approx(tiles * figures["requests_per_s"][0], rel=1e-2)
        assert ("times_plain" in figures) is ("share_of_engine" in figures) is (cache == "bypassed")
        if cache == "bypassed":
            share = figures["tiles_per_s"][0] / alone["tiles_per_s"][0]
            assert figures["share_of_engine"][0] == pytest.approx(share, rel=1e-3)
    [hit] = _rows(record, server="landmoe", cache="hit", tiles=1)
    [empty] = _rows(record, server="empty route", tiles=1)
    share = hit["requests_per_s"][0] / empty["requests_per_s"][0]
    assert hit["share_of_empty"][0] == pytest.approx(share, rel=1e-3)
    assert _rows(record, server="landmoe", after_requests=20)[0]["rss_mb"][0] > 10
    assert _rows(record, server="plain FastAPI", tiles=1)
    assert "litserve" in record["absent"].get("LitServe", "") or _rows(record, server="LitServe", tiles=1)


@pytest.mark.slow
@pytest.mark.server
def test_growth(tmp_path: Path) -> None:
    path = tmp_path / "growth.json"
    result = _bench("growth", "--quick", "--json", str(path))
    assert result.exit_code == 0, result.output
    record = read_record(path, "growth")
    grown = {name for row in record["rows"] for name in row["of"]}
    assert grown == {"engine_threads", "batch", "processes", "clients", "waiting", "scene"}
    [scene] = _rows(record, scene=160)
    assert scene["windows"] == [4, 4, 4]
    assert scene["rss_mb"][0] >= scene["rss_before_mb"][0] > 10


def test_a_setting_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDMOE_ENGINE_THREADS", "none")
    result = _bench("engine", "--quick")
    assert result.exit_code == 1
    assert "LANDMOE_ENGINE_THREADS" in result.output


def test_a_matrix_rate_that_cannot_be_measured_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise MatrixRateError("the matrix rate could not be measured: exit -9")

    monkeypatch.setattr(engine, "run", failing)
    result = _bench("engine", "--quick")
    assert result.exit_code == 1
    assert "landmoe: the matrix rate could not be measured: exit -9\n" in result.output
