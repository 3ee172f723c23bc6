"""What callers of the client give, one or many → tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from service.clients import stac
from service.clients.errors import UnusableTileError
from service.clients.links import is_link
from service.clients.tiles import Tile
from service.files import DELIVERY_PARTS
from service.parameters import PER_TILE

_ONE = (Tile, str, bytes, bytearray, memoryview, Mapping)


def as_tiles(given: Iterable[Any] | Any) -> list[Tile]:
    """One or many paths, URLs, bytes, arrays, STAC Items or tiles → tiles.

    Raises:
        UnusableTileError: one of them is none.
    """
    # An array of four dimensions is many tiles.
    one = isinstance(given, _ONE) or not isinstance(given, Iterable) or getattr(given, "ndim", 4) == 3
    return [tile for each in ([given] if one else given) for tile in _tiles(each)]


def check_common(options: Mapping[str, Any]) -> None:
    """Refuses lists of what holds for all tiles.

    Raises:
        TypeError: what was said is a list of values.
    """
    for name in PER_TILE & options.keys():
        if isinstance(value := options[name], Sized) and not isinstance(value, str) and name != "bands":
            raise TypeError(
                f"{name} is a {type(value).__name__} of {len(value)}; expected one value for all tiles (what "
                f"differs from tile to tile stands in Tile(..., {name}=...))"
            )


def _tiles(given: Any) -> list[Tile]:
    """The tile that something is; of a collection of STAC Items, all."""
    if type(given).__module__.partition(".")[0] == "pystac":
        given = given.to_dict(transform_hrefs=False)  # which would ask for a catalogue
    if isinstance(given, Tile):
        return [given]
    if stac.is_stac(given):
        return stac.tiles(given)
    if (
        isinstance(given, str | PathLike)
        and not is_link(given)
        and Path(given).suffix.lower() in stac.SUFFIXES
    ):
        return stac.read(Path(given))
    if isinstance(given, Mapping) and not given:
        raise UnusableTileError(
            "a tile is an empty mapping; expected a STAC Item, or paths or URLs by "
            f"{', '.join(DELIVERY_PARTS)}"
        )
    if isinstance(given, Mapping) and (
        unknown := [
            k for k, v in given.items() if k not in DELIVERY_PARTS or not isinstance(v, str | PathLike)
        ]
    ):
        raise UnusableTileError(
            f"a tile is a mapping with {str(unknown[0])[:100]!r}; expected a STAC Item, or paths or URLs by "
            f"{', '.join(DELIVERY_PARTS)}"
        )
    if isinstance(given, str | PathLike | bytes | np.ndarray | Mapping):
        return [Tile(data=given)]
    if isinstance(given, bytearray | memoryview):
        return [Tile(data=bytes(given))]
    raise UnusableTileError(
        f"a tile is a {type(given).__name__}; expected a path, a URL, bytes, a numpy array, a STAC Item or "
        "landmoe's Tile"
    )
