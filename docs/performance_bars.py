"""What was to be reached, beside what was: the first table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Record = Mapping[str, Any]
Figure = list[float]  # median, lowest, highest


class Bar(NamedTuple):
    """A figure, where it stands, and what it was to be."""

    what: str
    bench: str
    of: dict[str, Any]
    figure: str
    asked: float
    at_most: bool = False


_EXACT, _FAST, _LOOP = ({"contender": name, "batch": 32} for name in ("exact", "fast", "torch loop"))
_BYPASSED, _HIT = ({"tiles": 1, "cache": cache} for cache in ("bypassed", "hit"))
_AFTER = {"after_requests": 1000}
BARS = (
    Bar("exact at batch 32, of the fp32 matrix rate", "engine", _EXACT, "share_of_gemm", 0.75),
    Bar("exact at batch 32, times the published loop", "engine", _EXACT, "times_loop", 2.5),
    Bar("that loop, of what PyTorch's own products allow", "engine", _LOOP, "share_of_torch", 0.35),
    Bar("fast at batch 32, times exact", "engine", _FAST, "times_exact", 1.6),
    Bar("fast at batch 32, of its matrix rate", "engine", _FAST, "share_of_gemm", 0.5),
    Bar("a plain 41 x 41 px file to pixels, CRS and centre, µs", "decode",
        {"reader": "plain", "layout": "strips"}, "us_per_tile", 60, at_most=True),
    Bar("the same compressed (deflate, predictor), µs", "decode",
        {"reader": "plain", "layout": "strips, deflate, predictor"}, "us_per_tile", 60, at_most=True),
    Bar("64 connections, of the engine alone", "service",
        {"connections": 64} | _BYPASSED, "share_of_engine", 0.95),
    Bar("8 connections, of the engine alone", "service",
        {"connections": 8} | _BYPASSED, "share_of_engine", 0.85),
    Bar("1 connection, p50 above the engine's, ms", "service",
        {"connections": 1} | _BYPASSED, "over_engine_ms", 1, at_most=True),
    Bar("cache hits, 64 connections, of an empty route", "service",
        {"connections": 64} | _HIT, "share_of_empty", 0.6),
    Bar("resident after 1,000 requests without cache, MB", "service", _AFTER, "rss_mb", 250, at_most=True),
    Bar("a step with dense experts, times one with the loop", "step", {"experts": "dense"}, "times_loop", 1),
)  # fmt: skip
_COMMANDS = {"step": "landmoe-train bench step"}


def headline(records: Mapping[str, Record]) -> str:
    """The table. What was not measured says so."""
    lines = ["| | asked | reached | | measured by |", "| --- | --- | --- | --- | --- |"]
    for bar in BARS:
        found = _find(records.get(bar.bench), bar)
        show = _shown(bar)
        asked = f"{'≤' if bar.at_most else '≥'} {show(bar.asked)}"
        command = f"`{_COMMANDS.get(bar.bench, f'landmoe bench {bar.bench}')}`"
        if found is None:
            lines.append(f"| {bar.what} | {asked} | not measured | | {command} |")
            continue
        median, low, high = found
        spread = f" ({show(low)} to {show(high)})" if show(low) != show(high) else ""
        met = median <= bar.asked if bar.at_most else median >= bar.asked
        lines.append(
            f"| {bar.what} | {asked} | **{show(median)}**{spread} | {'yes' if met else 'no'} | {command} |"
        )
    return "\n".join(lines) + "\n"


def _find(record: Record | None, bar: Bar) -> Figure | None:
    for row in [] if record is None else record["rows"]:
        of = {"server": "landmoe"} if bar.bench == "service" else {}
        if (of | bar.of).items() <= row["of"].items() and bar.figure in row["figures"]:
            return list(row["figures"][bar.figure])
    return None


def _shown(bar: Bar) -> Callable[[float], str]:
    if bar.figure.startswith("share"):
        return lambda value: f"{value:.0%}"
    return lambda value: f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
