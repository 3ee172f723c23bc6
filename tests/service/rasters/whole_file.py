"""A GeoTIFF read at once, as the service reads a tile's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from service.rasters.geotiff import Content, Header, Limits, Reader


@dataclass
class Raster(Header):
    """What a file says, and its `pixels` (count, height, width) in the file's own type."""

    pixels: npt.NDArray[Any]


def read(data: Content, limits: Limits = Limits()) -> Raster:  # noqa: B008  # frozen
    """Raises GeotiffError as `Reader` does."""
    with Reader(data, limits, whole=True) as reader:
        pixels = reader.read()
        fields = {name: getattr(reader.header, name) for name in Header.__dataclass_fields__}
    return Raster(**fields | {"dtype": str(pixels.dtype)}, pixels=pixels)
