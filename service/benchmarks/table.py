"""Records (model/measurement.py) as tables, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH = 150  # where there is no terminal that has one


def show(record: Mapping[str, Any]) -> None:
    """Prints a record: medians, and by how much rounds lay off the median of each row's first figure."""
    console = Console()
    console = console if console.is_terminal else Console(width=_WIDTH)
    machine = record["machine"]
    console.print(
        f"{record['bench']}: {record['rounds']} rounds on {machine['cpus']} CPUs of {machine['cpu']}, "
        f"{record['date']}"
    )
    for rows in _alike(record["rows"]):
        columns = list(dict.fromkeys(name for row in rows for name in row["figures"]))
        table = Table()
        for name in (*rows[0]["of"], *columns):
            table.add_column(name.replace("_", " "), justify="right", overflow="fold")
        for row in rows:
            figures = [_shown(row["figures"].get(name), spread=name == columns[0]) for name in columns]
            table.add_row(*map(str, row["of"].values()), *figures)
        console.print(table)
    for name, reason in record["absent"].items():
        console.print(f"not measured: {name}: {reason}", markup=False)


def _alike(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that are of the same things share a table."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(tuple(row["of"]), []).append(row)
    return list(tables.values())


def _shown(figure: list[float] | None, *, spread: bool) -> str:
    if figure is None:
        return ""
    median, low, high = figure
    text = f"{median:,.3g}" if abs(median) < 1000 else f"{median:,.0f}"
    return f"{text} ±{max(high - median, median - low) / median:.0%}" if spread and median else text
