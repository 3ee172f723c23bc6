"""Plots of the records that performance.py writes into the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from training.charts import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, RED, SKY, figure, save, tidy

Record = Mapping[str, Any]
Point = tuple[float, Sequence[float]]  # x; median, lowest, highest

_COLOURS = {
    "exact": BLUE, "exact, onnxruntime": SKY, "fast": GREEN,
    "torch loop": RED, "torch dense": ORANGE, "naive onnx": PURPLE,
    "landmoe": BLUE, "plain FastAPI": RED, "LitServe": ORANGE, "empty route": GREY,
}  # fmt: skip


def write(made: Figure, path: Path) -> None:
    """As PNG."""
    save(made, path)


def engine(record: Record) -> Figure:
    """Tiles/s by batch, below what the matrix rate allows."""
    made = figure(7.5, 4.2)
    axes = made.subplots()
    names = dict.fromkeys(r["of"]["contender"] for r in record["rows"] if r["of"].get("batch"))
    for name in names:
        points = _points(
            record, "batch", "tiles_per_s", lambda of, name=name: of["contender"] == name and of["batch"]
        )
        _line(axes, points, name)
    flops = record["settings"]["mflop_per_tile"] * 1e6
    for row in record["rows"]:
        if row["of"]["contender"] == "matrix rate":
            for key, (rate, _, _) in row["figures"].items():
                bound = rate * 1e9 / flops
                axes.axhline(bound, color=BLACK, linestyle="--", linewidth=1)
                label = f"{key.partition('_')[0]} matrix rate"
                axes.annotate(label, (1, bound), xytext=(0, 3), textcoords="offset points", fontsize=8)
    _doubling(axes)
    _titles(axes, "tiles in a batch", "tiles/s")
    made.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return made


def service(record: Record) -> Figure:
    """Rates by connections: uncached beside the engine alone, one tile and many; hits and an empty route."""
    many = max((row["of"].get("tiles", 1) for row in record["rows"]), default=1)
    made = figure(11, 3.9)
    one, several, hits = made.subplots(1, 3)
    alone = next(row for row in record["rows"] if row["of"] == {"server": "engine alone"})
    for axes, tiles in ((one, 1), (several, many)):
        for name in ("landmoe", "plain FastAPI", "LitServe"):
            _line(axes, _served(record, name, tiles, ("bypassed", "none"), "tiles_per_s"), name)
        axes.axhline(
            alone["figures"]["tiles_per_s"][0], color=BLACK, linestyle="--", linewidth=1, label="engine alone"
        )
        axes.set_title(f"not cached, {tiles} tile{'s' if tiles > 1 else ''} a request", fontsize=10)
        _titles(axes, "connections", "tiles/s")
    for name, cache in (("landmoe", "hit"), ("empty route", "none")):
        _line(hits, _served(record, name, 1, (cache,), "requests_per_s"), name)
    hits.set_title("cached, 1 tile a request, a CPU each", fontsize=10)
    _titles(hits, "connections", "requests/s")
    for axes in (one, several, hits):
        _doubling(axes)
    handles = {
        label: handle
        for axes in (one, hits)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    return made


def growth(record: Record) -> Figure:
    """A panel for each thing that grows."""
    made = figure(11, 6.4)
    panels = made.subplots(2, 3).flatten()
    plan: list[tuple[str, str, str, str]] = [
        ("engine_threads", "tiles_per_s", "engine threads", "tiles/s, engine alone"),
        ("processes", "tiles_per_s", "serving processes (64 clients)", "tiles/s"),
        ("clients", "tiles_per_s", "clients (1 process)", "tiles/s"),
        ("batch", "p50_ms", "tiles in a batch", "ms until it is embedded (p50)"),
        ("waiting", "rss_mb", "tiles under way at once", "most resident memory, MB"),
        ("scene", "rss_mb", "side of the scene, px", "most resident memory, MB"),
    ]
    for axes, (key, name, x, y) in zip(panels, plan, strict=True):
        points = _points(record, key, name, lambda of, key=key: key in of)
        _line(axes, points, "landmoe")
        _titles(axes, x, y)
        if key in ("clients", "batch", "waiting", "scene"):
            _doubling(axes, [x for x, _ in points])
        else:
            axes.set_xticks([x for x, _ in points])
    return made


def decode(record: Record) -> Figure:
    """A line for each layout, a point for each reader."""
    layouts = list(dict.fromkeys(row["of"]["layout"] for row in record["rows"]))
    readers = list(dict.fromkeys(row["of"]["reader"] for row in record["rows"]))
    made = figure(7.5, 1.3 + 0.3 * len(layouts))
    axes = made.subplots()
    for number, reader in enumerate(readers):
        rows = [row for row in record["rows"] if row["of"]["reader"] == reader]
        at = [layouts.index(row["of"]["layout"]) for row in rows]
        x, below, above = _spread([row["figures"]["us_per_tile"] for row in rows])
        axes.errorbar(x, at, xerr=[below, above], fmt="o", capsize=2, color=PALETTE[number], label=reader)
    axes.set_xscale("log")
    axes.set_xlim(left=10)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(layouts)), layouts)
    axes.set_ylim(len(layouts) - 0.5, -0.5)
    axes.grid(axis="y", color="#DDDDDD")
    axes.grid(axis="x", which="both", color="#EEEEEE", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("µs from a file's bytes to its pixels, CRS and centre (41 x 41 px)")
    tidy(axes)
    made.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(readers), frameon=False
    )
    return made


CHARTS: dict[str, Callable[[Record], Figure]] = {
    "engine": engine,
    "decode": decode,
    "service": service,
    "growth": growth,
}


def _served(record: Record, server: str, tiles: int, caches: Sequence[str], name: str) -> list[Point]:
    return _points(
        record,
        "connections",
        name,
        lambda of: of["server"] == server and of.get("tiles") == tiles and of["cache"] in caches,
    )


def _points(record: Record, key: str, name: str, wanted: Callable[[Mapping[str, Any]], Any]) -> list[Point]:
    return sorted(
        (row["of"][key], row["figures"][name])
        for row in record["rows"]
        if key in row["of"] and wanted(row["of"]) and name in row["figures"]
    )


def _line(axes: Axes, points: Sequence[Point], name: str) -> None:
    """Medians, with bars from the lowest to the highest."""
    if not points:
        return
    x = [at for at, _ in points]
    medians, below, above = _spread([figure for _, figure in points])
    axes.errorbar(
        x,
        medians,
        [below, above],
        marker="o",
        markersize=4,
        capsize=2,
        color=_COLOURS.get(name, SKY),
        label=name,
    )


def _spread(figures: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Medians, and how far the lowest and the highest lie from them."""
    return (
        [median for median, _, _ in figures],
        [median - low for median, low, _ in figures],
        [high - median for median, _, high in figures],
    )


def _doubling(axes: Axes, ticks: Sequence[float] = ()) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if ticks:
        axes.set_xticks(list(ticks))


def _titles(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    tidy(axes)
