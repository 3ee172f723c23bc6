"""What a raster says of itself, what it may say, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.rasters.georeference import Affine, Georeference, PixelWindow


class GeotiffError(Exception):
    """Bytes that cannot be read as a GeoTIFF.

    Attributes:
        code: `not-a-tiff`, `unreadable-tiff`, `unsupported-pixel-type` or `too-large`.
        message: what came and what was expected.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Limits:
    """What a header may announce; checked before any pixel is read."""

    max_pixels: int = 64_000_000  # width * height: a scene of 8,000 x 8,000
    max_bands: int = 64
    max_decoded_bytes: int = 1 << 30  # of all bands, and of the largest block: what a bomb may unpack to
    max_strip_bytes: int = 1 << 28  # of the rows of a scene that are read at once


@dataclass  # frozen, it would take three times as long to make
class Header:
    """What a file says of its pixels.

    `scales`, `offsets` and `descriptions` are per band, as tagged (1, 0 and None where they are not).
    `nodata` is the declared value, or the request's instead. `tag_datetime` is TIFFTAG_DATETIME as text,
    usually the time of writing. `by_points` says that ground control points or RPCs alone place it; these are
    not resolved. `alpha` says that the last band calls itself alpha. `acquired` is the tag
    ACQUISITION_DATETIME as text, which nobody writes for anything else. `pages` are the pictures in the file,
    of which this is the first; masks and overviews are none.
    """

    count: int
    height: int
    width: int
    dtype: str
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    tag_datetime: str | None
    place: Georeference | None
    by_points: bool = field(default=False, kw_only=True)
    alpha: bool = field(default=False, kw_only=True)
    acquired: str | None = field(default=None, kw_only=True)
    pages: int = field(default=1, kw_only=True)

    @property
    def crs(self) -> str | None:
        """`EPSG:32633`, WKT where there is no code, None where there is no place."""
        return self.place.crs if self.place else None

    @property
    def transform(self) -> Affine | None:
        """(a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f, in the units of the CRS."""
        return self.place.transform if self.place else None

    @property
    def center(self) -> tuple[float, float] | None:
        """(lat, lon) of the centre of the whole file, WGS 84 degrees."""
        return self.place.center(self.whole) if self.place else None

    @property
    def gsd_m(self) -> float | None:
        """Size of a pixel on the ground at the file's centre, metres."""
        return self.place.gsd_m(self.whole) if self.place else None

    @property
    def whole(self) -> PixelWindow:
        """The window (row_off, col_off, height, width) of the whole file."""
        return (0, 0, self.height, self.width)

    def footprint(self, window: PixelWindow) -> dict[str, Any] | None:
        """GeoJSON polygon, WGS 84, of a window (row_off, col_off, height, width)."""
        return self.place.footprint(window) if self.place else None
