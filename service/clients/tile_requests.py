"""Tiles divided into requests, and the forms that these send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from service.clients.errors import ClientError, TooLargeError
from service.clients.tiles import Part, Tile
from service.parameters import PER_TILE


@dataclass(frozen=True, slots=True)
class TileRequest:
    """Tiles that go in one request; `indices` are theirs among all that were given."""

    indices: tuple[int, ...]
    tiles: tuple[Tile, ...]

    def fields(self, options: Mapping[str, str]) -> dict[str, list[str]]:
        """The fields of the form: what is said of each tile, in their order, and of all.

        What is said of all holds for each tile that says nothing else.
        """
        common = {name: value for name, value in options.items() if name in PER_TILE}
        # The service would number the tiles of each request from 0.
        rows = [{"id": str(i)} | common | t.fields() for i, t in zip(self.indices, self.tiles, strict=True)]
        names = sorted({name for row in rows for name in row})
        per_tile = {name: [row.get(name, "") for row in rows] for name in names}
        return {name: [value] for name, value in options.items()} | per_tile

    def halves(self, error: ClientError) -> tuple[TileRequest, ...]:
        """Two requests in its place, where its tiles were too large together; none where that does not help.

        How large the files behind URLs are is not known before.
        """
        middle = len(self.tiles) // 2
        if middle == 0 or not isinstance(error, TooLargeError) or error.errors:  # each its own
            return ()
        return tuple(
            TileRequest(self.indices[part], self.tiles[part]) for part in (slice(middle), slice(middle, None))
        )

    @contextmanager
    def opened(self) -> Iterator[list[Part]]:
        """The files of the form."""
        with ExitStack() as stack:
            yield [part for tile in self.tiles for part in stack.enter_context(tile.opened())]


def requests(tiles: Iterable[Tile], *, max_tiles: int, max_bytes: int, alone: bool) -> Iterator[TileRequest]:
    """Divides tiles into requests, in their order.

    Args:
        tiles: of any number.
        max_tiles: of one request.
        max_bytes: of one request that has more than one tile.
        alone: every tile has a request of its own, as scenes do. So has one that cannot be read: its failure
            is no other's.
    """
    indices: list[int] = []
    batch: list[Tile] = []
    size = 0
    for index, tile in enumerate(tiles):
        single = alone or tile.is_delivery or not tile.usable
        if batch and (single or len(batch) == max_tiles or size + tile.size > max_bytes):
            yield TileRequest(tuple(indices), tuple(batch))
            indices, batch, size = [], [], 0
        indices.append(index)
        batch.append(tile)
        if single:
            yield TileRequest(tuple(indices), tuple(batch))
            indices, batch, size = [], [], 0
        else:
            size += tile.size
    if batch:
        yield TileRequest(tuple(indices), tuple(batch))
