"""What becomes of each tile of a request, and the counts over all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from service.results import Embedded

MAX_LISTED = 1000  # failures that are listed one by one


@dataclass(frozen=True, slots=True)
class Skipped:
    """A window that was not computed: it has no valid pixel, or too many cloudy ones."""

    reason: Literal["empty", "cloudy"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tile with an index in the request; in a grid, of its window's row and column."""

    index: int
    result: Embedded | Skipped | Exception
    row: int | None = None
    col: int | None = None


@dataclass(slots=True)
class Tally:
    """Counts, and the first failures."""

    tiles: int
    count_cloudy: bool = False
    windows: int = 0
    embedded: int = 0
    skipped: dict[str, int] = field(default_factory=lambda: {"empty": 0, "cloudy": 0})
    failed: int = 0
    failures: list[tuple[int, Exception]] = field(default_factory=list)
    warned: dict[str, int] = field(default_factory=dict)  # results by the codes of their warnings

    def add(self, outcome: Outcome) -> None:
        """Counts one."""
        self.windows += 1
        if isinstance(outcome.result, Embedded):
            self.embedded += 1
            for code in {warning["code"]: None for warning in outcome.result.tile.fields["warnings"]}:
                self.warned[code] = self.warned.get(code, 0) + 1
        elif isinstance(outcome.result, Skipped):
            self.skipped[outcome.result.reason] += 1
        else:
            self.failed += 1
            if len(self.failures) < MAX_LISTED:
                self.failures.append((outcome.index, outcome.result))

    def summary(self) -> dict[str, int]:
        """The `summary` of the answer."""
        counts = {
            "tiles": self.tiles,
            "windows": self.windows,
            "embedded": self.embedded,
            "skipped_empty": self.skipped["empty"],
            "failed": self.failed,
        }
        return counts | ({"skipped_cloudy": self.skipped["cloudy"]} if self.count_cloudy else {})
