"""What docs/performance.py makes of records: tables, the verdicts beside the bars, plots."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model.measurement import Figures, Of, Record, of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def performance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("performance", DOCS / "performance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def engine_record(share: float = 0.8) -> dict[str, Any]:
    rounds: list[dict[Of, Figures]] = []
    for noise in (0.97, 1.0, 1.02):
        each: dict[Of, Figures] = {
            of(contender="matrix rate"): {
                "fp32_gflops": 185 * noise,
                "bf16_gflops": 410.0,
                "torch_gflops": 170.0,
            }
        }
        for batch in (1, 8, 32):
            for name, rate in (("exact", 250.0), ("torch loop", 100.0)):
                each[of(contender=name, batch=batch)] = {
                    "tiles_per_s": rate * noise * (0.5 if batch == 1 else 1),
                    "p50_ms": 1000 * batch / rate,
                    "share_of_gemm": share * rate / 250 * noise,
                    "times_loop": rate / 100,
                }
            each[of(contender="torch loop", batch=batch)]["share_of_torch"] = 0.38 * noise
        each[of(contender="exact", batch=0)] = {"tiles_per_s": 260.0, "share_of_gemm": share}
        rounds.append(each)
    return Record("engine", {"mflop_per_tile": 581.0}, rounds, {"fast": "no such encoder"}).to_json()


def service_record() -> dict[str, Any]:
    each: dict[Of, Figures] = {of(server="engine alone"): {"tiles_per_s": 250.0, "p50_ms": 8.5}}
    for n, share in ((1, 0.4), (8, 0.9), (64, 0.96)):
        load = {
            "requests_per_s": 250 * share,
            "tiles_per_s": 250 * share,
            "p50_ms": n / share * 4,
            "p99_ms": 9.0,
        }
        ours = load | {"share_of_engine": share, "times_plain": 2.5}
        each[of(server="landmoe", connections=n, tiles=1, cache="bypassed")] = ours
        each[of(server="landmoe", connections=n, tiles=32, cache="bypassed")] = ours
        each[of(server="plain FastAPI", connections=n, tiles=1, cache="none")] = load | {"tiles_per_s": 100.0}
        hits = {"requests_per_s": 2900.0, "tiles_per_s": 2900.0, "p50_ms": 0.4, "share_of_empty": 0.55}
        each[of(server="landmoe", connections=n, tiles=1, cache="hit")] = hits
        each[of(server="empty route", connections=n, tiles=1, cache="none")] = {"requests_per_s": 5200.0}
    each[of(server="landmoe", after_requests=1000)] = {"rss_mb": 190.0, "processes": 1.0}
    return Record("service", {}, [each]).to_json()


def growth_record() -> dict[str, Any]:
    each: dict[Of, Figures] = {}
    for i, side in enumerate((1000, 2000, 4000, 8000)):
        each[of(scene=side)] = {
            "rss_mb": 330.0 + i,
            "rss_before_mb": 220.0,
            "windows": 4.0**i,
            "windows_per_s": 200.0,
        }
        each[of(waiting=4**i)] = {"rss_mb": 220.0 + 5 * i, "rss_before_mb": 220.0}
        each[of(clients=2**i)] = {"tiles_per_s": 200.0 - 50 / (i + 1)}
        each[of(batch=2**i)] = {"p50_ms": 8.0 * 2**i, "tiles_per_s": 200.0}
    for n in (1, 2):
        each[of(engine_threads=n)] = {"tiles_per_s": 120.0 * n}
        each[of(processes=n)] = {"tiles_per_s": 200.0, "p50_ms": 300.0, "rss_mb": 200.0 * n}
    return Record("growth", {}, [each]).to_json()


def decode_record() -> dict[str, Any]:
    each: dict[Of, Figures] = {
        of(reader=reader, layout=layout): {"us_per_tile": us * factor}
        for reader, us in (("plain", 31.4), ("rasterio", 420.0), ("tifffile", 164.0))
        for layout, factor in (("strips", 1.0), ("strips, deflate, predictor", 2.0))
    }
    del each[of(reader="tifffile", layout="strips, deflate, predictor")]
    return Record("decode", {}, [each]).to_json()


RECORDS = [engine_record(), service_record(), growth_record(), decode_record()]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["bench"])
def test_a_block_holds_the_figures_and_has_its_plot(
    performance: ModuleType, record: dict[str, Any], tmp_path: Path
) -> None:
    made = performance.block(record)
    assert record["machine"]["cpu"] in made
    assert record["date"] in made
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:3]}) == 1, rows
    expected = {
        "engine": "| 32 | 250 (242 to 255) | 100 (97 to 102) |",
        "service": "| landmoe | 64 | 1 | bypassed | 240 | 240 |",
        "decode": "| strips, deflate, predictor | 62.8 | 840 |  |",
        "growth": "| 8000 | 333 | 220 | 64 | 200 |",
    }
    assert expected[record["bench"]] in made
    path = tmp_path / "plot.png"
    performance.performance_charts.write(performance.performance_charts.CHARTS[record["bench"]](record), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    if record["bench"] == "engine":
        assert "Not measured: fast (no such encoder)." in made


def test_the_headline_says_what_was_reached_and_what_was_not(performance: ModuleType) -> None:
    lines = performance.performance_bars.headline({"engine": engine_record(0.8), "service": service_record()})
    by_bar = {line.split("|")[1].strip(): line for line in lines.splitlines()}
    assert (
        "| ≥ 75% | **80%** (78% to 82%) | yes | `landmoe bench engine` |"
        in by_bar["exact at batch 32, of the fp32 matrix rate"]
    )
    loop = by_bar["that loop, of what PyTorch's own products allow"]
    assert "| ≥ 35% | **38%** (37% to 39%) | yes |" in loop
    assert "not measured" in by_bar["fast at batch 32, times exact"]
    assert "| ≥ 60% | **55%** | no |" in by_bar["cache hits, 64 connections, of an empty route"]
    assert "| ≤ 250 | **190** | yes |" in by_bar["resident after 1,000 requests without cache, MB"]


def test_blocks_leave_the_prose_around_them(performance: ModuleType) -> None:
    page = "before\n<!-- bench:x:begin -->\nold\n<!-- bench:x:end -->\nafter\n"
    after = performance.with_blocks(page, {"x": "new\n"})
    assert after == "before\n<!-- bench:x:begin -->\n\nnew\n\n<!-- bench:x:end -->\nafter\n"
    assert performance.with_blocks(after, {"x": "new\n"}) == after
    with pytest.raises(ValueError, match="bench:y:begin"):
        performance.with_blocks(page, {"y": "new\n"})


def test_a_bench_without_columns_of_its_own_shows_all_it_has(performance: ModuleType) -> None:
    record = Record("new", {}, [{of(reader="ours", layout="strips"): {"us_per_tile": 31.4}}]).to_json()
    assert (
        "| reader | layout | us per tile |\n| --- | --- | --- |\n| ours | strips | 31.4 |"
        in performance.block(record)
    )


def test_the_page_is_up_to_date() -> None:
    found = subprocess.run(
        [sys.executable, DOCS / "performance.py", "--check"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
