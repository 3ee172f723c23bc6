"""Windows of a raster, and the grid that cuts a scene into tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from model.tile_errors import TileError

TILE_SIZE = 40  # px, a side


class Window(NamedTuple):
    """Pixels of a raster, counted from its upper left corner."""

    row_off: int
    col_off: int
    height: int
    width: int


class GridWindow(NamedTuple):
    """A window of a grid and its place in it, counted from 0."""

    row: int
    col: int
    window: Window


def windows(height: int, width: int, stride: int = TILE_SIZE) -> Iterator[GridWindow]:
    """The 40 x 40 windows of a raster, row by row; partial ones at the right and bottom are dropped.

    Raises:
        TileError: `bad-parameter` for a stride below 1, `wrong-size` for a raster without one whole window.
    """
    if stride < 1:
        raise TileError("bad-parameter", f"stride is {stride}; expected at least 1 px")
    if min(height, width) < TILE_SIZE:
        raise TileError(
            "wrong-size",
            f"the raster is {width} x {height} px and has no whole {TILE_SIZE} x {TILE_SIZE} window; "
            "send fit=resize",
        )
    return (
        GridWindow(row, col, Window(row * stride, col * stride, TILE_SIZE, TILE_SIZE))
        for row in range((height - TILE_SIZE) // stride + 1)
        for col in range((width - TILE_SIZE) // stride + 1)
    )
