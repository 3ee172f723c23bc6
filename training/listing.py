"""A CSV that lists tiles, and what it says of them that their files do not."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model import metadata
from model.metadata import Acquisition, MetadataError


class ListingError(ValueError):
    """A list of tiles that cannot be used: which line, and what is wrong with it."""


@dataclass(frozen=True)
class Listed:
    """One line; what it does not say is None, and then the file counts."""

    name: str  # of the file, without its ending; with its folders where the list gives them
    when: Acquisition | None = None
    lat: float | None = None  # degrees
    lon: float | None = None
    labels: tuple[str, ...] | None = None


Listing = Mapping[str, Listed]

COLUMNS = ("id", "datetime", "lat", "lon", "labels")
# What they are called by mistake: unread, a whole set would be packed without its labels, times or places.
_MEANT = {
    "label": "labels",
    "class": "labels",
    "latitude": "lat",
    "longitude": "lon",
    "lng": "lon",
    **dict.fromkeys(("date", "time", "timestamp"), "datetime"),
}


def read_listing(path: Path) -> dict[str, Listed]:
    """Tiles by name, in the order of the file.

    The columns `id`, `datetime`, `lat`, `lon` and `labels` ('|' between several) are read, others are not. A
    file without any of them is a plain list of names: its first column counts, from the first line on.

    Raises:
        ListingError: not readable as CSV text, columns of other names than these or without `id`, or a line
            with an unusable value, surplus values, or a name that came before.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ListingError(f"{path}: not a readable CSV file ({error})") from error
    columns = [cell.strip() for cell in rows[0]] if rows else []
    try:
        plain = _is_plain(columns)
    except ValueError as error:
        raise ListingError(f"{path}: {error}") from error
    found: dict[str, Listed] = {}
    for number, row in enumerate(rows if plain else rows[1:], start=1 if plain else 2):
        values = {"id": row[0]} if plain else dict(zip(columns, row, strict=False))
        try:
            if not plain and any(cell.strip() for cell in row[len(columns) :]):
                raise ValueError(
                    f"{len(row)} values for {len(columns)} columns; a label with a comma needs quotes"
                )
            listed = _line({key: value.strip() for key, value in values.items()})
        except (ValueError, MetadataError) as error:
            raise ListingError(f"{path}, line {number}: {error}") from error
        if listed.name in found:
            raise ListingError(f"{path}, line {number}: {listed.name} is listed twice")
        found[listed.name] = listed
    return found


def line(listing: Listing, path: Path) -> Listed | None:
    """The line of a file, by its name alone or with as many of its folders as the list gives; None = none."""
    parts = path.with_suffix("").parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((listing[name] for name in names if name in listing), None)


def said(listing: Listing | None, path: Path) -> Listed:
    """What the list says of a file; nothing where there is no list, or no line."""
    return (line(listing, path) if listing is not None else None) or Listed(path.stem)


def without_ending(name: str) -> str:
    """A file's name as tiles are listed: without `.tif` or `.tiff`."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in (".tif", ".tiff") else path)


def _is_plain(columns: list[str]) -> bool:
    """Whether the first line is a name already.

    Raises:
        ValueError: it names columns, but not as they are called, or apart by something else than commas.
    """
    parts = re.split("[;\t]", columns[0].lower()) if len(columns) == 1 else []
    if len(parts) > 1 and set(parts) & {*COLUMNS, *_MEANT}:
        raise ValueError(f"the columns {columns[0]!r} are not separated by commas")
    for column in columns:
        meant = column.lower() if column.lower() in COLUMNS else _MEANT.get(column.lower())
        if meant and meant not in columns and (len(columns) > 1 or meant == "id"):
            raise ValueError(f"a column is called {column!r}; expected {meant!r}")
    if "id" not in columns and set(columns) & set(COLUMNS):
        raise ValueError(f"no column is called 'id' (the names of the files); found {', '.join(columns)}")
    return "id" not in columns


def _line(values: dict[str, str]) -> Listed:
    if not values.get("id"):
        raise ValueError("no id")
    lat = float(values["lat"]) if values.get("lat") else None
    lon = float(values["lon"]) if values.get("lon") else None
    metadata.check_position(lat, lon)
    return Listed(
        name=without_ending(values["id"]),
        when=metadata.parse_datetime(values["datetime"]) if values.get("datetime") else None,
        lat=lat,
        lon=lon,
        labels=tuple(part for part in values["labels"].split("|") if part) if "labels" in values else None,
    )
