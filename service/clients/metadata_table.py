"""The table that a command is given with what is known of its files: a date, a place ..."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from service.clients.errors import InputError
from service.clients.links import base_name, is_link, without_query
from service.clients.tiles import Tile
from service.parameters import PER_TILE

FILE = "file"  # the column that names them


class MetadataTable:
    """Rows of a CSV file by the files that they name.

    A row names a file alone, or with as many of its folders as it gives; the longest name wins. Two spellings
    of one letter are the same, since systems differ in how they spell accents in names of files.

    Attributes:
        rows: per-tile parameters by the name of a file, as it stands in the table.

    Raises:
        InputError: it cannot be read, or says what is not known of tiles.
    """

    def __init__(self, path: Path) -> None:
        self.rows = _read(path)
        self._exact = {_normal(name): name for name in self.rows}
        self._spelt = {_spelt(name): row for name, row in self._exact.items()}

    def name_of(self, given: Path | str | Tile) -> str | None:
        """The row of a file, URL, or STAC Item; None if it has none."""
        for name in _names(given):
            found = self._exact.get(name) or self._spelt.get(_spelt(name))
            if found is not None:
                return found
        return None


def short_name(given: Path | str | Tile) -> str:
    """What messages call it."""
    *_, last = _names(given)
    return last


def _names(given: Path | str | Tile) -> Iterator[str]:
    """By what a table may name it, the longest first."""
    if isinstance(given, Tile):
        yield given.id or ""
    elif is_link(given):  # two may differ behind the `?` alone
        yield from (given, without_query(given), base_name(given))
    else:
        yield _normal(str(given))
        parts = Path(os.path.abspath(given)).parts  # noqa: PTH100  # `resolve` would follow links
        yield str(Path(*parts))
        yield from ("/".join(parts[start:]) for start in range(1, len(parts)))


def _normal(name: str) -> str:
    return name if is_link(name) else os.path.normpath(name)


def _spelt(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _read(table: Path) -> dict[str, dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(table, list(reader.fieldnames or ()))
            rows: dict[str, dict[str, str]] = {}
            for row in reader:
                if None in row:  # what csv calls the cells behind the last column
                    raise InputError(
                        f"{table}, line {reader.line_num}: more cells than the {len(row) - 1} columns; "
                        "expected quotes around a text with commas, and decimal points"
                    )
                if row[FILE] in rows:
                    raise InputError(f"{table}, line {reader.line_num}: {row[FILE]} has a row before")
                if row[FILE]:
                    rows[row[FILE]] = {name: text for name, text in row.items() if name != FILE and text}
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is no text in UTF-8 ({error}); expected a CSV file") from error
    except OSError as error:
        raise InputError(f"{table}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(f"{table}: {error}") from error
    if not rows:
        raise InputError(f"{table} has no rows; expected one for each file")
    return rows


def _check_columns(table: Path, names: list[str]) -> None:
    unknown = sorted(set(names) - PER_TILE - {FILE})
    if FILE in names and not unknown:
        return
    shown = [name or "one without a name" for name in sorted(names)]
    reason = (
        f"; unknown: {', '.join(name or 'one without a name' for name in unknown)}" if FILE in names else ""
    )
    if "" in names:
        reason += " (pandas writes its index so, and leaves it out with index=False)"
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        reason += "; commas have to separate them"
    raise InputError(
        f"{table} has the columns {', '.join(shown) or 'none'}; expected {FILE!r} and some of "
        f"{', '.join(sorted(PER_TILE))}{reason}"
    )
