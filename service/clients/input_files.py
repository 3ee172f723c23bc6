"""The tiles that a command line names: files, folders, and a table of what is said of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.clients import stac
from service.clients.errors import InputError, UnusableTileError
from service.clients.links import base_name, is_link, without_query
from service.clients.tiles import Tile, unicode
from service.parameters import PER_TILE
from service.rasters import delivery

IMAGES = (".tif", ".tiff")
_FILE = "file"  # column of a table of metadata


def find_tiles(
    paths: Sequence[str | Path],
    table: Path | None,
    common: Mapping[str, str],
    tell: Callable[[str], None] = lambda _: None,
) -> list[Tile]:
    """The tiles that a command line names.

    Args:
        paths: GeoTIFFs, folders of them, folders of Landsat deliveries, STAC Items (.json), and URLs of
            GeoTIFFs.
        table: a CSV file with the column `file` (path, base name or id of an Item) and columns named as the
            per-tile parameters are.
        common: per-tile parameters that hold for all without one of their own.
        tell: given a line about files and rows of the table that do not belong together.

    Raises:
        InputError: no such path, a folder without tiles, a table that cannot be used or names none of them.
    """
    rows = {} if table is None else _read_table(table)
    found: list[Tile] = []
    without: list[str] = []
    used: dict[str, list[str]] = {}  # rows, and for what
    for given in _expanded(paths):
        name = next((name for name in _names(given) if name in rows), None)
        row = {} if name is None else rows[name]
        if name is None:
            without.append(_names(given)[-1])
        else:
            used.setdefault(name, []).append(_names(given)[0])
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
                f"{table} names {_few(unused)}, and none of the files, {_few(without)}; expected their paths "
                f"or base names in the column {_FILE!r}"
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


def _names(given: Path | str | Tile) -> list[str]:
    """By what a table may name it."""
    if isinstance(given, Tile):
        return [given.id or ""]
    if is_link(given):  # two may differ behind the `?` alone
        return [given, _shown(given), base_name(given)]
    return [str(given), Path(given).name]


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
        inside = sorted(
            p
            for p in path.iterdir()
            # Hidden files are not meant: macOS leaves one beside each file that it writes elsewhere.
            if p.name[0] != "." and (p.suffix.lower() in IMAGES or delivery.is_delivery(p))
        )
        if not inside:
            raise InputError(f"{path}: no GeoTIFF (.tif, .tiff) and no Landsat delivery in this folder")
        found += inside
    return found


def _read_table(table: Path) -> dict[str, dict[str, str]]:
    """Per-tile parameters by the file's path and by its base name."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = set(reader.fieldnames or ())
            if _FILE not in names or (unknown := sorted(names - PER_TILE - {_FILE})):
                raise InputError(
                    f"{table} has the columns {', '.join(sorted(names)) or 'none'}; expected {_FILE!r} and "
                    f"some of {', '.join(sorted(PER_TILE))}"
                    + (f"; unknown: {', '.join(unknown)}" if _FILE in names else "")
                )
            rows: dict[str, dict[str, str]] = {}
            for row in reader:
                if None in row:  # what csv calls the cells behind the last column
                    raise InputError(
                        f"{table}, line {reader.line_num}: more cells than the {len(names)} columns; "
                        "expected quotes around a text with commas, and decimal points"
                    )
                if row[_FILE] in rows:
                    raise InputError(f"{table}, line {reader.line_num}: {row[_FILE]} has a row before")
                if row[_FILE]:
                    rows[row[_FILE]] = {name: text for name, text in row.items() if name != _FILE and text}
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: {error}") from error


def _few(names: Sequence[str]) -> str:
    """Some names, and how many there are in all."""
    shown = ", ".join(map(_shown, names[:3]))
    return shown if len(names) <= 3 else f"{shown} ... ({len(names)} in all)"
