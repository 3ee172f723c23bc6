"""Tiles as a client has them (files, bytes, arrays, deliveries) → requests that the service takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime as DateTime
from functools import cached_property
from os import SEEK_END, PathLike
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from service.clients import array_file
from service.clients.errors import UnusableTileError
from service.clients.links import is_link, without_query
from service.files import TILE_PART
from service.parameters import PER_TILE
from service.rasters import delivery

_TIFF = "image/tiff"
_UNNAMED = "tile.tif"
# A field instead of a file where it has no name.
Part = tuple[str, tuple[str | None, "str | bytes | IO[bytes]", str]]
_TEXT = "text/plain"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One file, array or delivery, and what is said of it.

    Attributes:
        data: a path of a GeoTIFF, or its URL; its bytes; a numpy array (7, height, width); the folder of a
            Landsat delivery with a file for each band, or the paths or URLs of these files by their names
            (SR_B1 to SR_B7, QA_PIXEL, MTL). URLs are for the service to fetch, if its operator allows it.
        name: base name that the answer repeats as `source`; the path's if not given.
        crs: of an array, as rasterio takes it, such as `EPSG:32633`.
        transform: of an array: affine.Affine, or its six numbers.
        nodata: value of invalid pixels, of an array or of a file that does not declare it; or `none`.
        id, datetime, lat, lon, units, scale, offset, bands, location_source, datetime_source: as in the
            service's API.

    NaN, NaT and pandas' NA, which tables have where they have nothing, are None; of `nodata`, NaN is a value.
    """

    data: str | PathLike[str] | bytes | NDArray[Any] | Mapping[str, str | PathLike[str]]
    name: str | None = None
    crs: Any = None
    transform: Any = None
    nodata: float | str | None = None
    id: str | None = None
    datetime: str | DateTime | None = None
    lat: float | None = None
    lon: float | None = None
    units: str | None = None
    scale: float | None = None
    offset: float | None = None
    bands: str | Sequence[str | int] | None = None
    location_source: str | None = None
    datetime_source: str | None = None

    def __post_init__(self) -> None:
        for name in {"name", *PER_TILE} - {"nodata"}:
            if _is_missing(getattr(self, name)):
                object.__setattr__(self, name, None)

    @property
    def path(self) -> Path | None:
        """The file or folder it is in; None where there is not one."""
        if isinstance(self.data, bytes | np.ndarray | Mapping) or is_link(self.data):
            return None
        return Path(self.data)

    @property
    def links(self) -> list[str]:
        """The URLs of files that the service is to fetch for it."""
        places = self.data.values() if isinstance(self.data, Mapping) else [self.data]
        return [place for place in places if is_link(place)]

    @property
    def label(self) -> str:
        """What it is called in messages."""
        if is_link(self.data):
            return unicode(without_query(self.data))
        return str(self.path or self.name or self.id or "tile")

    @property
    def source(self) -> str | None:
        """What answers call its file; None if it has several without a folder."""
        if self.name is not None:
            return unicode(self.name)
        if isinstance(self.data, bytes | np.ndarray):
            return _UNNAMED
        return None if isinstance(self.data, Mapping) else unicode(PurePath(self.label).name)

    @cached_property
    def is_delivery(self) -> bool:
        """Whether it has a file for each band."""
        return isinstance(self.data, Mapping) or (self.path is not None and self.path.is_dir())

    @cached_property
    def size(self) -> int:
        """Bytes to send, about.

        Raises:
            UnusableTileError: there is no such file, or it cannot be read.
        """
        if isinstance(self.data, bytes):
            return len(self.data)
        if isinstance(self.data, np.ndarray):
            return int(self.data.nbytes)
        if isinstance(self.data, Mapping):
            return sum(_size(Path(place)) for place in self.data.values() if not is_link(place))
        return 0 if is_link(self.data) else _size(Path(self.data))

    @property
    def usable(self) -> bool:
        """Whether its file is there and can be read."""
        try:
            return self.size >= 0
        except UnusableTileError:
            return False

    def fields(self) -> dict[str, str]:
        """What is said of it, as texts."""
        given = {name: getattr(self, name) for name in PER_TILE}
        return {name: as_text(value) for name, value in given.items() if value is not None}

    @contextmanager
    def opened(self) -> Iterator[list[Part]]:
        """The parts of a form that bring it.

        Raises:
            UnusableTileError: no such file, an array or folder that cannot be sent.
        """
        if isinstance(self.data, bytes | np.ndarray):
            content = self.data if isinstance(self.data, bytes) else self._written(self.data)
            yield [(TILE_PART, (self.name or _UNNAMED, content, _TIFF))]
            return
        with ExitStack() as stack:
            try:
                parts: list[Part] = [
                    (part, (None, _link(place), _TEXT))
                    if is_link(place)
                    else (part, (name, stack.enter_context(Path(place).open("rb")), _TIFF))
                    for part, name, place in self._files()
                ]
            except OSError as error:
                raise UnusableTileError(f"{error.filename}: {error.strerror or error}") from error
            yield parts

    def _written(self, pixels: NDArray[Any]) -> bytes:
        return array_file.written(pixels, crs=self.crs, transform=self.transform, nodata=self.nodata)

    def _files(self) -> list[tuple[str, str, str | PathLike[str]]]:
        """Names of parts, names of files, and where these are."""
        if isinstance(self.data, Mapping):
            return [(part, unicode(Path(place).name), place) for part, place in self.data.items()]
        if self.path is None or not self.is_delivery:
            place: Any = self.data  # a path, or a URL
            return [(TILE_PART, unicode(self.name or Path(place).name), place)]
        try:
            return [(part, unicode(file.name), file) for part, file in delivery.find(self.path).items()]
        except delivery.DeliveryError as error:
            tiles = "" if delivery.is_delivery(self.path) else "; a folder of tiles is given as its files"
            raise UnusableTileError(f"{error}{tiles}") from error


def _is_missing(value: Any) -> bool:
    try:
        return bool(value != value)  # nothing else differs from itself
    except TypeError:  # pandas' NA says of no comparison whether it is true
        return True
    except ValueError:  # an array, of which some may
        return False


def _link(link: str) -> str:
    if (shown := unicode(link)) != link:
        raise UnusableTileError(f"{without_query(shown)}: the URL is no UTF-8; expected %xx for other bytes")
    return link


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        with path.open("rb") as file:  # whoever may not read it may see its size
            return file.seek(0, SEEK_END)
    except OSError as error:
        raise UnusableTileError(f"{path}: {error.strerror or error}") from error


def as_text(value: Any) -> str:
    """A parameter as the service reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, DateTime):
        return value.isoformat()
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return unicode(",".join(map(str, value)))
    return unicode(str(value))


def unicode(text: str) -> str:
    """Names of files are bytes, and not all are UTF-8: what is not has `?` in its place, as in answers."""
    return text.encode("utf-8", "replace").decode()
