"""What tiles are packed from, and the `.npz` sets among it; GeoTIFFs are read in `geotiffs.py`."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model import metadata
from model.bands import BANDS
from model.metadata import Acquisition, MetadataError
from model.windows import TILE_SIZE, windows
from training.listing import Listed, Listing, without_ending

Kind = Literal["npz", "scene", "folder", "bigearthnet", "eurosat"]
UInt16Array = NDArray[np.uint16]

# What numpy raises for files that are no archive, are cut off or damaged, encrypted, hold Python objects or a
# bare array.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, BadZipFile, TokenError,
    zlib.error,
)  # fmt: skip
# Of an .npz set, beside `x`: one value a tile. Whatever else is in it is not read.
_COLUMNS = ("lat", "lon", "time", "label", "id", "group", "gsd", "b1_estimated")

# "..._0040_1320": row and column offset (px) of a tile that was cut from a scene.
_OFFSETS = re.compile(r"^(?P<scene>.*)_(?P<row>\d{4})_(?P<col>\d{4})$")


class SourceConfig(BaseModel):
    """One thing to pack. Paths are relative to the root given to the command."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    path: Path
    kind: Kind
    units: Literal["auto", "dn", "reflectance", "reflectance_1e4"] = "auto"
    bands: str | None = None
    fit: Literal["crop", "resize"] | None = Field(
        default=None,
        description="null: by the tile's size, cropped from 40 px on, resized below (BigEarthNet: cropped)",
    )
    stride: int = Field(default=40, ge=1, description="px between windows of a scene; below 40 they overlap")
    stitch: bool = Field(
        default=False, description="npz: put neighbouring tiles of a scene together, cut at `stride`"
    )
    when: str | None = Field(
        default=None, description="acquisition time of all tiles, where the files do not say"
    )
    exclude: tuple[Path, ...] = Field(
        default=(), description="files of the folder to leave out, such as scenes that are sources themselves"
    )
    listing: Path | None = Field(default=None, description="CSV of the tiles to take; see `listing.py`")

    @field_validator("when")
    @classmethod
    def _readable(cls, when: str | None) -> str | None:
        if when:
            try:
                metadata.parse_datetime(when)
            except MetadataError as error:  # now, and not of every file
                raise ValueError(str(error)) from error
        return when


@dataclass(frozen=True)
class Sample:
    """One tile as it is packed."""

    id: str
    dn: UInt16Array  # (7, S, S), zeros as in the file
    when: Acquisition | None
    lat: float | None  # degrees, of the tile's centre
    lon: float | None
    gsd: float  # metres per pixel, NaN unknown
    group: str  # the scene or patch it comes from
    labels: tuple[str, ...] = ()
    at: tuple[int, int] | None = None  # first row and column of a scene's window, px
    b1_estimated: bool = False  # the coastal band was computed from the others
    warned: tuple[Warned, ...] = ()  # of the file's values


@dataclass(frozen=True)
class Skipped:
    """A file that gave no tile, and why."""

    path: str
    reason: str


class Warned(NamedTuple):
    """A file whose values are odd, and how."""

    file: str  # its path
    code: str
    message: str


def npz_names(path: Path) -> list[str]:
    """Names of the tiles in an `.npz` set; none where it cannot be read, which `read_npz` reports."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "id" in archive:
                return [_text(name) for name in archive["id"]]
            return [_unnamed(path, i) for i in range(len(archive["x"]))]
    except _UNREADABLE:
        return []


def read_npz(path: Path, source: SourceConfig, listing: Listing | None = None) -> Iterator[Sample | Skipped]:
    """Tiles of an `.npz` set: `x` uint16 (N, 7, S, S) DN and, per tile, what it has of the other columns.

    Those are lat, lon, time, label ('|' between several), id, group, gsd and b1_estimated. With a listing,
    only its tiles, in the set's order, and what it says of them goes before the columns.

    With `stitch`, tiles whose ids end in their offsets in a scene (`_0040_1320`) are laid out as that scene
    again, and windows are cut from it every `stride` px, which need not be the cuts of the original.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in ("x", *_COLUMNS) if name in archive}
    except _UNREADABLE as error:
        yield Skipped(str(path), f"not an .npz set that can be read: {error}")
        return
    x = columns.get("x")
    expected = (len(BANDS), TILE_SIZE, TILE_SIZE)
    if x is None or x.dtype != np.uint16 or x.shape[1:] != expected:
        found = "no array x" if x is None else f"x of {x.dtype} {x.shape}"
        yield Skipped(str(path), f"{found}; expected uint16 (N, {', '.join(map(str, expected))})")
        return
    for name, column in columns.items():
        if name != "x" and column.shape != (len(x),):
            yield Skipped(str(path), f"{name} of shape {column.shape}; expected ({len(x)},), a value a tile")
            return
    samples: list[Sample] = []
    for i in range(len(x)):
        sample = _npz_row(path, columns, i, source, listing)
        if isinstance(sample, Skipped):
            yield sample
        elif sample is not None:
            samples.append(sample)
    yield from _stitched(samples, source.stride) if source.stitch else samples


def _npz_row(
    path: Path, columns: dict[str, NDArray[Any]], i: int, source: SourceConfig, listing: Listing | None
) -> Sample | Skipped | None:
    """The tile of a row, why there is none, or None where it is not listed."""
    row = {name: column[i] for name, column in columns.items()}
    name = _text(row.get("id", _unnamed(path, i)))
    said = Listed(name) if listing is None else listing.get(without_ending(name))
    if said is None:
        return None
    if not row["x"].any():
        return Skipped(f"{path}#{name}", "every pixel is zero")
    try:
        lat, lon = float(row.get("lat", np.nan)), float(row.get("lon", np.nan))
        if said.lat is not None and said.lon is not None:
            lat, lon = said.lat, said.lon
        if placed := bool(np.isfinite(lat) and np.isfinite(lon)):
            metadata.check_position(lat, lon)
        time = _text(row.get("time", "")) or source.when
        when = said.when or (metadata.parse_datetime(time) if time else None)
    except (MetadataError, ValueError) as error:  # ValueError: positions that are no numbers
        return Skipped(f"{path}#{name}", str(error))
    label = _text(row.get("label", ""))
    return Sample(
        id=name,
        dn=row["x"],
        when=when,
        lat=lat if placed else None,
        lon=lon if placed else None,
        gsd=float(row.get("gsd", np.nan)),
        group=_text(row.get("group", name)),
        labels=said.labels if said.labels is not None else tuple(label.split("|")) if label else (),
        b1_estimated=bool(row.get("b1_estimated", False)),
    )


def _text(value: object) -> str:
    """A value of a text column; numpy's bytes are text too, and its "not a time" is none."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return "" if text == "NaT" else text


def _unnamed(path: Path, i: int) -> str:
    """What a row of a set without ids is called."""
    return f"{path.stem}_{i:06d}"


def _stitched(samples: list[Sample], stride: int) -> Iterator[Sample]:
    """Windows of the scenes that the samples were cut from; samples without offsets stay as they are."""
    scenes: dict[tuple[str, str], dict[tuple[int, int], Sample]] = {}
    for sample in samples:
        match = _OFFSETS.match(sample.id)
        if match is None or sample.lat is None:
            yield sample
            continue
        offset = int(match["row"]), int(match["col"])
        scenes.setdefault((sample.group, match["scene"]), {})[offset] = sample
    for (_, scene), parts in scenes.items():
        yield from _windows(scene, parts, stride)


def _windows(scene: str, parts: dict[tuple[int, int], Sample], stride: int) -> Iterator[Sample]:
    """Cut a scene, laid out from its tiles, every `stride` px; windows that miss a tile are left out."""
    size = TILE_SIZE
    offsets = np.array(list(parts))
    top_left = offsets.min(axis=0)
    height, width = offsets.max(axis=0) - top_left + size
    first = next(iter(parts.values()))
    canvas = np.zeros((len(first.dn), height, width), np.uint16)
    covered = np.zeros((height, width), np.bool_)
    for (row, col), sample in parts.items():
        at = np.s_[row - top_left[0] : row - top_left[0] + size, col - top_left[1] : col - top_left[1] + size]
        canvas[:, *at] = sample.dn
        covered[at] = True
    # Over some tens of kilometres latitude and longitude are planes in row and column, within metres.
    design = np.column_stack([offsets - top_left, np.ones(len(offsets))])
    position = np.array([(s.lat, s.lon) for s in parts.values()])
    plane, *_ = np.linalg.lstsq(design, position, rcond=None)
    for grid in windows(int(height), int(width), stride):
        row, col = grid.window.row_off, grid.window.col_off
        at = np.s_[row : row + size, col : col + size]
        if not covered[at].all() or not canvas[:, *at].any():
            continue
        lat, lon = np.array([row, col, 1.0]) @ plane
        yield Sample(
            id=f"{scene}_{row + top_left[0]:04d}_{col + top_left[1]:04d}",
            dn=canvas[:, *at].copy(),
            when=first.when,
            lat=float(lat),
            lon=float(lon),
            gsd=first.gsd,
            group=first.group,
            b1_estimated=first.b1_estimated,
        )
