"""Tables of what was measured, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = {
    "requests/s": "requests_per_s",
    "tiles/s": "tiles_per_s",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
}


def show_service(figures: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `bench_service.run` gives."""
    engine = figures["engine"]
    table = Table(
        title=f"{figures['rounds']} rounds on {figures['cpus']} CPUs, {figures['tiles_per_request']} tiles a "
        f"request; engine alone {engine['tiles_per_s']:.0f} tiles/s, one tile {engine['p50_ms']:.1f} ms",
        title_justify="left",
    )
    for name in ("connections", "cache", *_COLUMNS, "of the engine", "client CPU"):
        table.add_column(name, justify="right")
    for row in figures["rows"]:
        table.add_row(
            str(row["connections"]),
            "hit" if row["cached"] else "bypassed",
            *(f"{row[key]:,.1f}" for key in _COLUMNS.values()),
            f"{row['share_of_engine']:.0%}",
            f"{row['client_cpu_share']:.0%}",
        )
    (Console() if console is None else console).print(table)
