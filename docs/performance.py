"""Writes what was measured into docs/performance.md: `make bench` measures and calls this.

Records (model/measurement.py) are docs/benchmarks/*.json. Each belongs between a line with
"bench:<name>:begin" and one with "bench:<name>:end" of the page, and has its plot in docs/figures/;
"bench:headline" holds what was to be reached beside what was. With --check nothing is written; the exit
status says whether anything would be.
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import performance_bars
import performance_charts

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "performance.md"
RECORDS = DOCS / "benchmarks"
FIGURES = DOCS / "figures"
SATURATED = 0  # the batch that stands for as many batches at once as the engine takes

Record = Mapping[str, Any]

# Columns of a bench's tables: those rows that are of just these things, their figures under these titles.
_ROWS: dict[str, list[tuple[tuple[str, ...], dict[str, str]]]] = {
    "service": [
        (
            ("server", "connections", "tiles", "cache"),
            {
                "requests/s": "requests_per_s",
                "tiles/s": "tiles_per_s",
                "p50 ms": "p50_ms",
                "p99 ms": "p99_ms",
                "of the engine alone": "share_of_engine",
                "x plain FastAPI": "times_plain",
                "of an empty route": "share_of_empty",
            },
        ),
        (("server", "after_requests"), {"resident MB": "rss_mb", "processes": "processes"}),
    ],
    "growth": [
        (
            ("scene",),
            {
                "most MB": "rss_mb",
                "MB before": "rss_before_mb",
                "windows": "windows",
                "windows/s": "windows_per_s",
            },
        ),
        (("waiting",), {"most MB": "rss_mb", "MB before": "rss_before_mb"}),
        (("processes",), {"tiles/s": "tiles_per_s", "p50 ms": "p50_ms", "resident MB": "rss_mb"}),
        (("engine_threads",), {"tiles/s": "tiles_per_s"}),
    ],
    "step": [(("experts",), {"ms": "step_ms", "tiles/s": "tiles_per_s", "x loop": "times_loop"})],
    "loader": [(("loader",), {"tiles/s": "tiles_per_s"})],
}


def read_records() -> dict[str, Record]:
    """Records by the name of their bench."""
    found = (json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json")))
    return {record["bench"]: record for record in found}


def block(record: Record) -> str:
    """What stands between the lines of a bench."""
    name = record["bench"]
    tables = _OWN_TABLES.get(name, _tables)(record)
    absent = [
        f"Not measured: {what} ({html.escape(why, quote=False)})." for what, why in record["absent"].items()
    ]
    figure = f"![{name}](figures/bench-{name}.png)" if name in performance_charts.CHARTS else ""
    return "\n\n".join(filter(None, [_conditions(record), figure, *tables, *absent])) + "\n"


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """A page with the blocks of these names replaced.

    Raises:
        ValueError: the page does not have a block's two lines, once each and in order.
    """
    for name, content in blocks.items():
        lines = text.splitlines(keepends=True)
        begins = [i for i, line in enumerate(lines) if f"bench:{name}:begin" in line]
        ends = [i for i, line in enumerate(lines) if f"bench:{name}:end" in line]
        if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
            raise ValueError(
                f"expected one line with bench:{name}:begin and one with :end, got {begins}, {ends}"
            )
        text = "".join([*lines[: begins[0] + 1], "\n", content, "\n", *lines[ends[0] :]])
    return text


def figure(value: Sequence[float] | None, name: str, *, spread: bool = False) -> str:
    """A figure as its name asks for: shares in percent, the rest with the digits that mean something."""
    if value is None:
        return ""
    texts = [f"{v:.0%}" if name.startswith("share") else _number(v) for v in value]
    # A spread that does not show is none.
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if spread and texts[1] != texts[2] else texts[0]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")


def _conditions(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    programs = ", ".join(
        f"{name} {versions[name]}"
        for name in ("onnxruntime", "openvino", "torch", "litserve")
        if name in versions
    )
    rounds = (
        f"Medians of {record['rounds']} rounds (and their extremes)" if record["rounds"] > 1 else "One round"
    )
    instructions = ", ".join(machine["instructions"]) or "no wide instructions"
    return (
        f"{rounds}, {record['date']}: {machine['cpus']} CPUs of {machine['cpu']} ({instructions}), "
        f"{machine['memory_gb']} GB; {programs}."
    )


def _pivot(title: str, record: Record, down: str, across: str, figure_name: str) -> str:
    """One figure: a row for each value of `down`, a column for each of `across`."""
    rows = [row for row in record["rows"] if {down, across} <= row["of"].keys()]
    found = {(row["of"][down], row["of"][across]): row["figures"].get(figure_name) for row in rows}
    names = list(dict.fromkeys(row["of"][across] for row in rows))
    at = list(dict.fromkeys(row["of"][down] for row in rows))
    at.sort(key=lambda value: value == SATURATED)  # stays in order, but for this one
    return table(
        [title, *names],
        [
            [
                "saturated" if value == SATURATED else str(value),
                *(figure(found.get((value, name)), figure_name, spread=True) for name in names),
            ]
            for value in at
        ],
    )


def _decode_tables(record: Record) -> list[str]:
    """Microseconds by layout, a column for each reader."""
    return [_pivot("µs a tile", record, "layout", "reader", "us_per_tile")]


def _engine_tables(record: Record) -> list[str]:
    """Tiles/s by batch, a column for each contender; then what the usual batch is worth."""
    by_batch = _pivot("tiles/s at batch", record, "batch", "contender", "tiles_per_s")
    rates = {
        (r["of"]["contender"], r["of"]["batch"]): r["figures"] for r in record["rows"] if "batch" in r["of"]
    }
    names = list(dict.fromkeys(name for name, _ in rates))
    batches = sorted({batch for _, batch in rates if batch != SATURATED})
    usual = 32 if 32 in batches else batches[-1]
    columns = {
        "of the matrix rate": "share_of_gemm",
        "of PyTorch's products": "share_of_torch",
        "x published loop": "times_loop",
        "x exact": "times_exact",
    }
    worth = table(
        ["", f"batch {usual}: tiles/s", *columns, f"p50 ms at batch {batches[0]}"],
        [
            [
                name,
                figure(rates[name, usual]["tiles_per_s"], "", spread=True),
                *(figure(rates[name, usual].get(key), key, spread=True) for key in columns.values()),
                figure(rates[name, batches[0]]["p50_ms"], "", spread=True),
            ]
            for name in names
        ],
    )
    peaks = [
        f"{key.partition('_')[0]} {figure(value, '', spread=True)}"
        for row in record["rows"]
        if row["of"] == {"contender": "matrix rate"}
        for key, value in row["figures"].items()
    ]
    tile = f"a tile takes {record['settings']['mflop_per_tile']:.0f} MFLOP"
    return [by_batch, worth, *([f"Matrix rate, GFLOP/s: {', '.join(peaks)}; {tile}."] if peaks else [])]


def _tables(record: Record) -> list[str]:
    made = []
    for keys, columns in _ROWS.get(record["bench"], _plain_rows(record)):
        rows = [row for row in record["rows"] if tuple(row["of"]) == keys]
        shown = {title: key for title, key in columns.items() if any(key in row["figures"] for row in rows)}
        if rows:
            lines = [
                [
                    *map(str, row["of"].values()),
                    *(
                        figure(row["figures"].get(key), key, spread=number == 0)
                        for number, key in enumerate(shown.values())
                    ),
                ]
                for row in rows
            ]
            made.append(table([*(key.replace("_", " ") for key in keys), *shown], lines))
    return made


def _plain_rows(record: Record) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """All figures under their own names, for a bench that asks for nothing else."""
    kinds: dict[tuple[str, ...], dict[str, str]] = {}
    for row in record["rows"]:
        titles = {name.replace("_", " "): name for name in row["figures"]}
        kinds.setdefault(tuple(row["of"]), {}).update(titles)
    return list(kinds.items())


_OWN_TABLES: dict[str, Callable[[Record], list[str]]] = {"engine": _engine_tables, "decode": _decode_tables}


def main() -> None:
    """Writes, or with --check compares, the page; plots are drawn anew when it is written."""
    records = read_records()
    before = PAGE.read_text()
    blocks = {name: block(record) for name, record in records.items()}
    after = with_blocks(before, blocks | {"headline": performance_bars.headline(records)})
    if sys.argv[1:] == ["--check"]:
        if after != before:
            print(f"{PAGE.name}: not up to date; run docs/performance.py")
            sys.exit(1)
        return
    PAGE.write_text(after)
    for name, draw in performance_charts.CHARTS.items():
        if name in records:
            performance_charts.write(draw(records[name]), FIGURES / f"bench-{name}.png")


if __name__ == "__main__":
    main()
