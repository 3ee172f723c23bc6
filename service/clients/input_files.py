"""The tiles that a command line names: files, folders, and a table of what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.clients import stac
from service.clients.errors import InputError, UnusableTileError
from service.clients.links import is_link, without_query
from service.clients.metadata_table import FILE, MetadataTable, short_name
from service.clients.tiles import Tile, unicode
from service.rasters import delivery

IMAGES = (".tif", ".tiff")


def find_tiles(
    paths: Sequence[str | Path],
    table: Path | None,
    common: Mapping[str, str],
    tell: Callable[[str], None] = lambda _: None,
) -> list[Tile]:
    """The tiles that a command line names.

    Args:
        paths: GeoTIFFs, folders with them or with folders of them, folders of Landsat deliveries, STAC Items
            (.json), and URLs of GeoTIFFs.
        table: a CSV file with the column `file` (a path, the end of one, or the id of an Item) and columns
            named as the per-tile parameters are.
        common: per-tile parameters that hold for all without one of their own.
        tell: given a line about files and rows of the table that do not belong together.

    Raises:
        InputError: no such path, a folder without tiles, a table that cannot be used or names none of them.
    """
    said = None if table is None else MetadataTable(table)
    rows = {} if said is None else said.rows
    found: list[Tile] = []
    without: list[str] = []
    used: dict[str, list[str]] = {}  # rows, and for what
    for given in _expanded(paths):
        name = None if said is None else said.name_of(given)
        row = {} if name is None else rows[name]
        if name is None:
            without.append(short_name(given))
        else:
            used.setdefault(name, []).append(str(given.id if isinstance(given, Tile) else given))
        item = given if isinstance(given, Tile) else Tile(data=given, id=unicode(_shown(given)))
        own = item.fields()  # of an Item
        known: dict[str, Any] = {n: v for n, v in common.items() if n not in own} | row
        try:
            found.append(replace(item, **known))
        except TypeError as error:
            raise InputError(str(error)) from error
    if table is not None:
        unused = [name for name in rows if name not in used]
        if not used:
            raise InputError(
                f"{table} names {_few(unused)}, and none of the files, {_few(without)}; expected their names "
                f"in the column {FILE!r}, with as many of their folders as you like"
            )
        if without:
            tell(f"{table} has no row for {_few(without)}")
        for name, files in used.items():
            if len(set(files)) > 1:  # by a base name; the same file may come twice
                tell(f"{table} has one row, {_shown(name)}, for {_few(files)}; a path in it is of one file")
        if unused:
            tell(f"{table} names {_few(unused)}, not among the files")
    return found


def _shown(given: Path | str) -> str:
    return without_query(given) if is_link(given) else str(given)


def _expanded(named: Sequence[str | Path]) -> list[Path | str | Tile]:
    """Files, URLs, and the tiles of STAC Items."""
    found: list[Path | str | Tile] = []
    for one in named:
        if is_link(one):
            found.append(one)
            continue
        path = Path(one)
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file() and path.suffix.lower() in stac.SUFFIXES:
            try:
                found += stac.read(path)
            except UnusableTileError as error:
                raise InputError(str(error)) from error
            continue
        if not path.is_dir() or delivery.is_delivery(path):
            found.append(path)
            continue
        inside = list(_below(path))
        if not inside:
            raise InputError(
                f"{path}: no GeoTIFF (.tif, .tiff) and no Landsat delivery in this folder or below"
            )
        found += inside
    return found


def _below(folder: Path) -> Iterator[Path]:
    """GeoTIFFs and deliveries of a folder and the folders in it, by their names."""
    for path in sorted(folder.iterdir()):
        # Hidden files are not meant: macOS leaves one beside each file that it writes elsewhere.
        if path.name[0] == ".":
            continue
        if path.is_dir() and not delivery.is_delivery(path):
            if not path.is_symlink():  # which may lead back
                yield from _below(path)
        elif path.is_dir() or path.suffix.lower() in IMAGES:
            yield path


def _few(names: Sequence[str]) -> str:
    """Some names, and how many there are in all."""
    shown = ", ".join(map(_shown, names[:3]))
    return shown if len(names) <= 3 else f"{shown} ... ({len(names)} in all)"
