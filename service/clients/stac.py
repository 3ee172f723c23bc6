"""STAC Items of Landsat Collection 2, Level 2 → tiles whose files lie where the Items' assets say.

SpatioTemporal Asset Catalog 1.0 and 1.1. Names of assets are those of USGS, Planetary Computer and Earth
Search, which agree but for case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from model.bands import BANDS
from service.clients.errors import UnusableTileError
from service.clients.links import is_link
from service.clients.tiles import Tile, unicode
from service.files import MTL_PART, QA_PART

_ASSETS = {
    **dict(zip(("coastal", "blue", "green", "red", "nir08", "swir16", "swir22"), BANDS, strict=True)),
    "qa_pixel": QA_PART,
}
_MTL_ASSETS = ("mtl.json", "mtl.txt", "mtl.xml")


def is_stac(given: Any) -> bool:
    """Whether it is an Item or a collection of Items, as JSON has them."""
    if not isinstance(given, Mapping):
        return False
    if given.get("type") == "FeatureCollection":
        return all(map(is_stac, given.get("features", ())))
    return given.get("type") == "Feature" and "assets" in given


def read(path: Path) -> list[Tile]:
    """The tiles of a file with an Item, or with a collection of them.

    Raises:
        UnusableTileError: the file is no such JSON, or an Item's assets cannot be used.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise UnusableTileError(f"{path} is no JSON: {error}") from error
    if not is_stac(document):
        raise UnusableTileError(f"{path} is no STAC Item and no collection of Items (ItemCollection)")
    return tiles(document, path)


def tiles(document: Mapping[str, Any], path: Path | None = None) -> list[Tile]:
    """A tile for each Item.

    Args:
        document: an Item, or a collection of Items.
        path: of its file, to which relative places of assets refer.

    Raises:
        UnusableTileError: an Item has not all bands, or has them where no file can be asked for.
    """
    if document["type"] == "FeatureCollection":
        return [_tile(item, path) for item in document["features"]]
    return [_tile(document, path)]


def _tile(item: Mapping[str, Any], path: Path | None) -> Tile:
    name = str(item.get("id", "without id"))[:100]
    assets = {str(key).lower(): asset for key, asset in item["assets"].items()}
    missing = [key for key, part in _ASSETS.items() if part != QA_PART and key not in assets]
    if missing:
        raise UnusableTileError(
            f"the STAC Item {name} lacks the assets {', '.join(missing)}; expected one of Landsat 8 or 9, "
            f"Collection 2, Level 2, with {', '.join(list(_ASSETS)[:-1])}"
        )
    base = _self_link(item) if path is None else path
    parts = {
        part: _place(assets[key], base, f"{name}, asset {key}")
        for key, part in _ASSETS.items()
        if key in assets
    }
    taken = (item.get("properties") or {}).get("datetime")
    if taken is None:  # else MTL says the same
        for key in _MTL_ASSETS:
            if key in assets:
                parts[MTL_PART] = _place(assets[key], base, f"{name}, asset {key}")
                break
    return Tile(data=parts, id=unicode(name), datetime=taken)


def _self_link(item: Mapping[str, Any]) -> str | None:
    return next((str(link["href"]) for link in item.get("links", ()) if link.get("rel") == "self"), None)


def _place(asset: Mapping[str, Any], base: Path | str | None, what: str) -> str | Path:
    href = str(asset.get("href", ""))
    scheme = urlsplit(href).scheme.lower()
    if not scheme and isinstance(base, str):
        href = urljoin(base, href)
        scheme = urlsplit(href).scheme.lower()
    if is_link(href):
        return href
    if scheme == "file":
        return Path(unquote(urlsplit(href).path))
    if href and not scheme:
        return href if base is None else Path(base).parent / href
    raise UnusableTileError(f"STAC Item {what}: the file is at {href[:100]!r}; expected https, or a path")
