"""Where pixels lie on the ground: CRS and transform → WGS 84."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

Affine = tuple[float, float, float, float, float, float]
PixelWindow = tuple[int, int, int, int]  # row_off, col_off, height, width

_WGS84 = "EPSG:4326"
_GEOD = Geod(ellps="WGS84")
_ANTIMERIDIAN = 180.0
_WIDE = 20.0  # degrees of longitude from the centre: beyond, the ends of an edge do not tell its way
_STEPS = 16  # of such an edge
_LEAST_WIDTH = 1e-9  # degrees, a tenth of a millimetre: more than rounding leaves
# Transformers a thread keeps: all UTM zones in use at once, but not what an attacker invents.
_MAX_CACHED = 64
_cache = threading.local()  # pyproj objects belong to the thread that made them


@dataclass(frozen=True)
class Georeference:
    """The CRS (name and WKT) and affine transform of a raster that has both.

    `transform` is (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f, counted from the upper
    left corner of the upper left pixel.
    """

    crs: str
    wkt: str
    transform: Affine

    def center(self, window: PixelWindow) -> tuple[float, float] | None:
        """(lat, lon) of the window's centre in WGS 84 degrees; None where the CRS does not reach."""
        row, col, height, width = window
        positions = self.to_wgs84([(col + width / 2, row + height / 2)])
        return None if positions is None else positions[0][::-1]

    def gsd_m(self, window: PixelWindow) -> float | None:
        """Side of a square of a pixel's area at the window's centre, metres on the ellipsoid."""
        pixel = _pixel(self, window)
        return None if pixel is None else math.sqrt(pixel.width_m * pixel.height_m)

    def directions(self, window: PixelWindow) -> tuple[float, float] | None:
        """Where columns and rows run at the window's centre: degrees from north, clockwise, up to 180.

        90 and 180 of a raster with north up, but for the few degrees by which a projection turns it.
        """
        pixel = _pixel(self, window)
        return None if pixel is None else (pixel.columns, pixel.rows)

    def distance_m(self, window: PixelWindow, lat: float, lon: float) -> float | None:
        """From the window's centre to a place, metres along the ellipsoid."""
        here = self.center(window)
        if here is None:
            return None
        return float(_GEOD.inv(here[1], here[0], lon, lat)[2])

    def footprint(self, window: PixelWindow) -> dict[str, Any] | None:
        """GeoJSON (RFC 7946) of the window's four corners: longitude before latitude, counterclockwise.

        A Polygon, or a MultiPolygon of two where the window lies across the antimeridian. A window that is
        wide, or near a pole, has points along its edges, too. None where it has a pole in it, or goes around
        the globe more than once.
        """
        row, col, height, width = window
        # Lower left, lower right, upper right, upper left.
        right, low = col + width, row + height
        corners = [(col, low), (right, low), (right, row), (col, row)]
        found = self.to_wgs84([*corners, (col + width / 2, row + height / 2)])
        if found is None:
            return None
        ring: list[tuple[float, float]] | None = found[:4]
        far = max([abs(lon - found[4][0]) for lon, _ in found[:4]])
        if far < _WIDE:
            return {"type": "Polygon", "coordinates": [_closed(found[:4])]}
        if far <= 360 - _WIDE:
            ring = self.to_wgs84(_along(corners))
        if ring is None or (ring := _continuous(ring)) is None:
            return None
        lons, lats = [lon for lon, _ in ring], [lat for _, lat in ring]
        if max(lons) - min(lons) > 360 - _LEAST_WIDTH and self.transform[1] == self.transform[3] == 0:
            # All around: where it begins there is no side.
            south, north = min(lats), max(lats)
            ring = [(-180.0, south), (180.0, south), (180.0, north), (-180.0, north)]
        elif max(lons) > _ANTIMERIDIAN:
            return _cut(ring)
        return {"type": "Polygon", "coordinates": [_closed(ring)]}

    def to_wgs84(self, pixels: Sequence[tuple[float, float]]) -> list[tuple[float, float]] | None:
        """(lon, lat) in [-180, 180] and [-90, 90] of (col, row); None if the CRS does not reach one of them.

        Points one by one: for the few that a window has, numpy's calls take longer than the projection.
        """
        a, b, c, d, e, f = self.transform
        positions = []
        try:
            transform = _transformer(self.wkt).transform
            for col, row in pixels:
                lon, lat = transform(a * col + b * row + c, d * col + e * row + f)
                if not (math.isfinite(lon) and abs(lat) <= 90):
                    return None
                if abs(lon) > 180:  # files in degrees from 0 to 360
                    lon = (lon + 180) % 360 - 180
                positions.append((lon, lat))
        except ProjError:
            return None
        return positions


class _Pixel(NamedTuple):
    """Sizes of a pixel on the ellipsoid, and where columns and rows run, see `Georeference.directions`."""

    width_m: float
    height_m: float
    columns: float
    rows: float


@lru_cache(maxsize=64)  # several questions about each raster
def _pixel(place: Georeference, window: PixelWindow) -> _Pixel | None:
    """The pixel at a window's centre; None where the CRS does not reach."""
    row, col, height, width = window
    x, y = col + width / 2, row + height / 2
    ends = place.to_wgs84([(x - 0.5, y), (x + 0.5, y), (x, y - 0.5), (x, y + 0.5)])
    if ends is None:
        return None
    left, right, top, bottom = ends
    columns, _, width_m = _GEOD.inv(*left, *right)
    rows, _, height_m = _GEOD.inv(*top, *bottom)
    return _Pixel(width_m, height_m, columns, rows)


def placed(crs: str, wkt: str, transform: Affine) -> Georeference | None:
    """A georeference; None where the transform has values that are no numbers, or maps pixels onto a line."""
    a, b, _, d, e, _ = transform
    if not all(map(math.isfinite, transform)) or a * e == b * d:
        return None
    return Georeference(crs, wkt, transform)


def _transformer(wkt: str) -> Transformer:
    """To WGS 84 longitude, latitude; made once per CRS and thread, for making one takes 1,000 times a use."""
    known: OrderedDict[str, Transformer] = _cache.__dict__.setdefault("transformers", OrderedDict())
    if wkt in known:
        known.move_to_end(wkt)
        return known[wkt]
    crs = CRS.from_wkt(wkt)
    if crs.is_geocentric:  # a plane of x and y through the Earth: PROJ would take z for 0
        raise CRSError(f"{crs.name} is geocentric; expected a CRS with a plane of pixels on the ground")
    transformer = Transformer.from_crs(crs.to_2d(), _WGS84, always_xy=True)
    known[wkt] = transformer
    if len(known) > _MAX_CACHED:
        known.popitem(last=False)
    return transformer


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points on the edges of a ring."""
    return [
        (x + (next_x - x) * step / _STEPS, y + (next_y - y) * step / _STEPS)
        for (x, y), (next_x, next_y) in zip(corners, [*corners[1:], corners[0]], strict=True)
        for step in range(_STEPS)
    ]


def _continuous(ring: list[tuple[float, float]]) -> list[tuple[float, float]] | None:
    """The ring with longitudes that do not jump, the least in [-180, 180).

    None if it goes around a pole, or around the globe more than once.
    """
    turns = [0]
    for (lon, _), (next_lon, _) in zip(ring, [*ring[1:], ring[0]], strict=True):
        turns.append(turns[-1] - round((next_lon - lon) / 360))
    if turns.pop() != 0:
        return None
    lons = [lon + 360 * turn for (lon, _), turn in zip(ring, turns, strict=True)]
    if max(lons) - min(lons) > 360 + _LEAST_WIDTH:
        return None
    first = math.floor((min(lons) + _ANTIMERIDIAN) / 360)
    return [(lon + 360 * (turn - first), lat) for (lon, lat), turn in zip(ring, turns, strict=True)]


def _cut(ring: list[tuple[float, float]]) -> dict[str, Any] | None:
    """A ring across the antimeridian as two."""
    beyond = [(lon - 360, lat) for lon, lat in _clip(ring, _ANTIMERIDIAN, keep_below=False)]
    parts = [part for part in (_clip(ring, _ANTIMERIDIAN, keep_below=True), beyond) if _has_width(part)]
    if len(parts) == 1:  # it only touches the antimeridian
        return {"type": "Polygon", "coordinates": [_closed(parts[0])]}
    return {"type": "MultiPolygon", "coordinates": [[_closed(part)] for part in parts]} if parts else None


def _clip(ring: list[tuple[float, float]], meridian: float, *, keep_below: bool) -> list[tuple[float, float]]:
    """The part of a ring on one side of a meridian, which crosses it twice (Sutherland and Hodgman 1974)."""
    kept: list[tuple[float, float]] = []
    for (lon, lat), (next_lon, next_lat) in zip(ring, ring[1:] + ring[:1], strict=True):
        inside, next_inside = (lon <= meridian) == keep_below, (next_lon <= meridian) == keep_below
        if inside:
            kept.append((lon, lat))
        if inside != next_inside:
            share = (meridian - lon) / (next_lon - lon)
            kept.append((meridian, lat + share * (next_lat - lat)))
    return [here for here, after in zip(kept, kept[1:] + kept[:1], strict=True) if here != after]


def _has_width(ring: list[tuple[float, float]]) -> bool:
    """False for what is left beyond the antimeridian of a window that ends there."""
    lons = [lon for lon, _ in ring]
    return len(ring) > 2 and max(lons) - min(lons) > _LEAST_WIDTH


def _closed(ring: list[tuple[float, float]]) -> list[list[float]]:
    """GeoJSON's ring: counterclockwise, the first position again at the end."""
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True))
    ring = ring if area >= 0 else ring[::-1]
    return [list(position) for position in [*ring, ring[0]]]
