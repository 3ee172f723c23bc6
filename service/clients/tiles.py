"""Tiles as a client has them (files, bytes, arrays, deliveries) → requests that the service takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime as DateTime
from functools import cached_property
from os import SEEK_END, PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import tastes_like_gdal

from model.bands import BANDS
from service.clients.errors import UnusableTileError
from service.clients.links import is_link, without_query
from service.files import TILE_PART
from service.nodata import NONE
from service.parameters import PER_TILE
from service.rasters import delivery

_TIFF = "image/tiff"
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
            content = self.data if isinstance(self.data, bytes) else self._written()
            yield [(TILE_PART, (self.name or "tile.tif", content, _TIFF))]
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
            raise UnusableTileError(str(error)) from error

    def _written(self) -> bytes:
        """The array as a GeoTIFF; what a masked one hides is nodata, or 0, which is no value of a band."""
        given: Any = self.data
        declared = self._declared()
        hidden = 0 if declared is None else declared
        pixels = given.filled(hidden) if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
        if pixels.ndim != 3 or pixels.dtype.kind not in "uif":
            raise UnusableTileError(
                f"the array is {pixels.dtype} {pixels.shape}; expected numbers (7, height, width)"
            )
        if pixels.shape[2] == len(BANDS) != pixels.shape[0]:
            raise UnusableTileError(
                f"the array is {pixels.shape}, its bands last; expected (7, height, width), as "
                "numpy.moveaxis(array, -1, 0) makes it"
            )
        if pixels.dtype == np.float16:  # TIFF has it, GDAL before 3.11 does not
            pixels = pixels.astype(np.float32)
        count, height, width = pixels.shape
        place = self._place()
        try:
            with warnings.catch_warnings(), MemoryFile() as memory:
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with memory.open(
                    driver="GTiff",
                    count=count,
                    height=height,
                    width=width,
                    dtype=pixels.dtype,
                    nodata=declared,
                    **place,
                ) as dataset:
                    dataset.write(pixels)
                return bytes(memory.read())
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError, ValueError, TypeError) as error:
            raise UnusableTileError(f"the array cannot be written as a GeoTIFF: {error}") from error

    def _place(self) -> dict[str, Any]:
        """CRS and transform of an array, as rasterio takes them."""
        if self.transform is None:
            if self.crs is not None:
                raise UnusableTileError(
                    f"the array has the CRS {str(self.crs)[:60]} and no transform; expected both, or neither"
                )
            return {}
        numbers = tuple(self.transform)[:6]
        if len(numbers) < 6 or tastes_like_gdal(numbers):
            raise UnusableTileError(
                f"transform is {numbers}, of GDAL's order or too short; expected (a, b, c, d, e, f) with "
                "x = a col + b row + c, y = d col + e row + f, as affine.Affine.from_gdal makes it"
            )
        transform = rasterio.Affine(*numbers)
        return {"transform": transform} if self.crs is None else {"transform": transform, "crs": self.crs}

    def _declared(self) -> float | None:
        """The value that the file of an array declares."""
        if self.nodata is None or self.nodata == NONE:
            return None
        try:
            return float(self.nodata)
        except (TypeError, ValueError) as error:
            raise UnusableTileError(f"nodata is {self.nodata!r}; expected a number, or {NONE!r}") from error


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
