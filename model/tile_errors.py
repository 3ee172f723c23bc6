"""What can be wrong or doubtful with a tile."""

from __future__ import annotations

from dataclasses import dataclass


class TileError(ValueError):
    """A raster that cannot become a tile.

    Attributes:
        code: kind of problem in kebab-case: `empty-tile`, `unknown-units`, `wrong-band-count`,
            `ambiguous-bands`, `missing-coastal`, `wrong-size`, `unsupported-pixel-type` or `bad-parameter`.
        message: what came, what was expected, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class TileWarning:
    """Something to know about a tile that was used all the same; `code` is in kebab-case."""

    code: str
    message: str
