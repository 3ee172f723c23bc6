"""STAC Items of Landsat Collection 2, Level 2 → tiles whose files lie where the Items' assets say.

SpatioTemporal Asset Catalog 1.0 and 1.1. Names of assets are those of USGS, Planetary Computer and Earth
Search, which agree but for case. An Item may come from anybody, and so may links in an archive with it: files
of this machine are taken for it only if they lie below the folder of the Item's own file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from model.bands import BANDS, COMMON_NAMES
from service.clients.errors import UnusableTileError
from service.clients.links import is_link, without_query
from service.clients.tiles import Tile, unicode
from service.files import MTL_PART, QA_PART

SUFFIXES = (".json", ".geojson")  # of files with Items
_ASSETS = {
    **dict(zip(COMMON_NAMES, BANDS, strict=True)),
    "qa_pixel": QA_PART,
}
_MTL_ASSETS = ("mtl.json", "mtl.txt", "mtl.xml")


def is_stac(given: Any) -> bool:
    """Whether it is meant as STAC, as JSON has it."""
    return isinstance(given, Mapping) and (
        "stac_version" in given or given.get("type") in ("Feature", "FeatureCollection")
    )


def read(path: Path) -> list[Tile]:
    """The tiles of a file with an Item, or with a collection of them.

    Raises:
        UnusableTileError: the file cannot be read, is no such JSON or has no Item, or an Item's assets cannot
            be used.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusableTileError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UnusableTileError(f"{path} is no JSON: {error}") from error
    if not is_stac(document):
        raise UnusableTileError(f"{path} is no STAC Item and no collection of Items (ItemCollection)")
    if not (found := tiles(document, path)):
        raise UnusableTileError(f"{path} has no STAC Items; expected one at least")
    return found


def tiles(document: Mapping[str, Any], path: Path | None = None) -> list[Tile]:
    """A tile for each Item.

    Args:
        document: an Item, or a collection of Items.
        path: of its file, to which relative places of assets refer.

    Raises:
        UnusableTileError: one is no Item, has not all bands, or has them where no file can be asked for.
    """
    if document.get("type") != "FeatureCollection":
        return [_tile(document, path)]
    items = document.get("features")
    if not isinstance(items, list | tuple):
        raise UnusableTileError(f"features are a {type(items).__name__}; expected an array of STAC Items")
    return [_tile(item, path) for item in items]


def _tile(item: Any, path: Path | None) -> Tile:
    if not isinstance(item, Mapping) or item.get("type") != "Feature" or not _has_assets(item):
        kind = item.get("type") if isinstance(item, Mapping) else item
        raise UnusableTileError(f"{str(kind)[:100]!r} came; expected a STAC Item: a Feature with assets")
    said = item.get("id")
    name = "without id" if said is None else unicode(str(said)[:100])
    assets = {str(key).lower(): asset for key, asset in item["assets"].items()}
    missing = [key for key, part in _ASSETS.items() if part != QA_PART and key not in assets]
    if missing:
        raise UnusableTileError(
            f"the STAC Item {name} lacks the assets {', '.join(missing)}; expected one of Landsat 8 or 9, "
            f"Collection 2, Level 2, with {', '.join(list(_ASSETS)[:-1])}"
        )
    base = path if path is not None else _self_link(item)
    parts = {
        part: _place(assets[key], base, f"{name}, asset {key}")
        for key, part in _ASSETS.items()
        if key in assets
    }
    properties = item.get("properties")
    taken = properties.get("datetime") if isinstance(properties, Mapping) else None
    if taken is None:  # else MTL says the same
        for key in _MTL_ASSETS:
            if key in assets:
                parts[MTL_PART] = _place(assets[key], base, f"{name}, asset {key}")
                break
    return Tile(data=parts, id=name, datetime=taken)


def _has_assets(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("assets"), Mapping)


def _self_link(item: Mapping[str, Any]) -> str:
    """The URL of an Item; empty if it does not say."""
    links = item.get("links")
    for link in links if isinstance(links, list | tuple) else ():
        if isinstance(link, Mapping) and link.get("rel") == "self":
            return str(link.get("href"))
    return ""


def _place(asset: Any, base: Path | str, what: str) -> str | Path:
    href = asset.get("href") if isinstance(asset, Mapping) else None
    if isinstance(href, str) and href and "\0" not in href:
        with suppress(ValueError):  # it is no URL
            if isinstance(base, str):
                href = urljoin(base, href) if is_link(base) else href
            elif (place := _below(base.absolute().parent, href)) is not None:
                return place
        if is_link(href):
            return href
    below = "a path below its folder, which no link there leads out of"
    local = "the Item as the path of its file" if isinstance(base, str) else below
    shown = None if href is None else without_query(str(href))[:100]
    raise UnusableTileError(f"STAC Item {what}: the file is at {shown!r}; expected https, or {local}")


def _below(folder: Path, href: str) -> Path | None:
    """A path if it leads to below the folder, by its words and by the links on its way."""
    parts = urlsplit(href)
    if parts.scheme not in ("", "file"):
        return None
    place = Path(os.path.normpath(folder / (unquote(parts.path) if parts.scheme else href)))
    inside = place.is_relative_to(folder) and Path(os.path.realpath(place)).is_relative_to(
        os.path.realpath(folder)
    )
    return place if inside else None
