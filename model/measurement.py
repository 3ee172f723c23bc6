"""Measurements in interleaved rounds, and the record that every `bench` command writes.

A record is JSON: `bench` (its name), `format`, `date` (UTC), `machine` and `versions` (machine.py),
`settings` (what was asked for), `rounds`, `rows`, and `absent`: what could not be measured, and why. A row
says what was measured in `of`, such as {"contender": "exact", "batch": 32}, and in `figures`, by name with
the unit in it, [median, lowest, highest] of the rounds.

Rounds alternate between all measurements, so that what else the machine does falls on all of them; ratios are
taken within a round before their median is.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from model import machine

FORMAT = 1

Of = tuple[tuple[str, str | int | bool], ...]
Figures = dict[str, float]
Round = dict[Of, Figures]
Measure = Callable[[], Figures]


def of(**what: str | int | bool) -> Of:
    """What a measurement is of, usable as a key; the order is kept for readers."""
    return tuple(what.items())


@dataclass
class Record:
    """What a bench found; `to_json` gives the record described above."""

    bench: str
    settings: Mapping[str, Any]
    rounds: Sequence[Round]
    absent: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; a figure that some round lacks is of the rounds that have it."""
        return {
            "bench": self.bench,
            "format": FORMAT,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine.describe(),
            "versions": machine.versions(),
            "settings": dict(self.settings),
            "rounds": len(self.rounds),
            "rows": [{"of": dict(what), "figures": self._figures(what)} for what in self._keys()],
            "absent": self.absent,
        }

    def _keys(self) -> list[Of]:
        return list(dict.fromkeys(what for each in self.rounds for what in each))

    def _figures(self, what: Of) -> dict[str, list[float]]:
        rows = [each[what] for each in self.rounds if what in each]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: _spread([row[name] for row in rows if name in row]) for name in names}


def interleave(
    measurements: Mapping[Of, Measure],
    rounds: int,
    *,
    settings: Mapping[str, Any],
    partial: Path | None = None,
) -> list[Round]:
    """Takes every measurement once a round, the rounds in alternating order.

    Args:
        measurements: what to measure, and how.
        rounds: of all of them.
        settings: decide, with the machine and the versions, whether an interrupted run is continued.
        partial: a file that keeps the rounds that are done, so that an interrupted run continues behind them;
            `write` deletes it.
    """
    conditions = {"settings": dict(settings), "machine": machine.describe(), "versions": machine.versions()}
    done = _resumed(partial, conditions, measurements)[:rounds]
    _keep(partial, conditions, done)  # now, so that a file which cannot be written is not found hours later
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = rounds * len(measurements)
        task = progress.add_task("", total=total, completed=len(done) * len(measurements))
        for number in range(len(done), rounds):
            found: Round = {}
            order = list(measurements) if number % 2 == 0 else list(measurements)[::-1]
            for what in order:
                progress.update(task, description=" ".join(f"{name} {value}" for name, value in what))
                found[what] = measurements[what]()
                progress.advance(task)
            done.append({what: found[what] for what in measurements})
            _keep(partial, conditions, done)
            if not console.is_terminal:
                console.print(f"round {number + 1} of {rounds} done")
    return done


def write(record: Mapping[str, Any], path: Path) -> None:
    """Writes a finished record and forgets the rounds that were kept for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    partial_of(path).unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Where the rounds of a record that is not finished are kept."""
    return path.with_name(path.name + ".partial")


def _keep(partial: Path | None, conditions: Mapping[str, Any], done: Sequence[Round]) -> None:
    if partial is not None:
        rows = [[{"of": list(map(list, what)), "figures": row[what]} for what in row] for row in done]
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({**conditions, "rounds": rows}))


def _resumed(
    partial: Path | None, conditions: Mapping[str, Any], wanted: Mapping[Of, Measure]
) -> list[Round]:
    if partial is None or not partial.exists():
        return []
    try:
        kept = json.loads(partial.read_text())
        rounds = [
            {tuple((name, value) for name, value in row["of"]): row["figures"] for row in each}
            for each in kept.pop("rounds")
        ]
    except (ValueError, KeyError, TypeError):
        return []  # cut off while it was written
    same = kept == json.loads(json.dumps(conditions)) and all(list(each) == list(wanted) for each in rounds)
    return rounds if same else []


def _spread(values: Sequence[float]) -> list[float]:
    """Median, lowest, highest; five significant digits are more than any of them holds."""
    return [float(f"{value:.5g}") for value in (statistics.median(values), min(values), max(values))]
