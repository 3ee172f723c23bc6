"""Where pixels lie on the ground: CRS and transform → WGS 84."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

Affine = tuple[float, float, float, float, float, float]
PixelWindow = tuple[int, int, int, int]  # row_off, col_off, height, width

_WGS84 = "EPSG:4326"
_GEOD = Geod(ellps="WGS84")
_MAX_CACHED = (
    64  # transformers a thread keeps: all UTM zones in use at once, but not what an attacker invents
)
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
        lons, lats = self._to_wgs84([col + width / 2], [row + height / 2])
        return (float(lats[0]), float(lons[0])) if _on_earth(lons, lats) else None

    def gsd_m(self, window: PixelWindow) -> float | None:
        """Side of a square of a pixel's area at the window's centre, metres on the ellipsoid."""
        row, col, height, width = window
        x, y = col + width / 2, row + height / 2
        lons, lats = self._to_wgs84([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
        if not _on_earth(lons, lats):
            return None
        _, _, sides = _GEOD.inv(lons[[0, 2]], lats[[0, 2]], lons[[1, 3]], lats[[1, 3]])
        return math.sqrt(float(sides[0]) * float(sides[1]))

    def distance_m(self, window: PixelWindow, lat: float, lon: float) -> float | None:
        """From the window's centre to a place, metres along the ellipsoid."""
        here = self.center(window)
        if here is None:
            return None
        return float(_GEOD.inv(here[1], here[0], lon, lat)[2])

    def footprint(self, window: PixelWindow) -> dict[str, Any] | None:
        """GeoJSON (RFC 7946) of the window's four corners: longitude before latitude, counterclockwise.

        A Polygon, or a MultiPolygon of two where the window lies across the antimeridian.
        """
        row, col, height, width = window
        # Lower left, lower right, upper right, upper left.
        lons, lats = self._to_wgs84(
            [col, col + width, col + width, col], [row + height, row + height, row, row]
        )
        if not _on_earth(lons, lats):
            return None
        ring = [(float(lon), float(lat)) for lon, lat in zip(lons, lats, strict=True)]
        if max(lons) - min(lons) <= 180:
            return {"type": "Polygon", "coordinates": [_closed(ring)]}
        east = [(lon + 360 if lon < 0 else lon, lat) for lon, lat in ring]  # continuous, around 180
        beyond = [(lon - 360, lat) for lon, lat in _clip(east, 180, keep_below=False)]
        parts = [part for part in (_clip(east, 180, keep_below=True), beyond) if len(part) > 2]
        if len(parts) == 1:  # it only touches the antimeridian, as one with a corner at a pole may
            return {"type": "Polygon", "coordinates": [_closed(parts[0])]}
        return {"type": "MultiPolygon", "coordinates": [[_closed(part)] for part in parts]} if parts else None

    def _to_wgs84(
        self, cols: list[float], rows: list[float]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Longitudes in [-180, 180] and latitudes of pixel positions; inf where the CRS does not reach."""
        a, b, c, d, e, f = self.transform
        col, row = np.array(cols), np.array(rows)
        try:
            lons, lats = _transformer(self.wkt).transform(a * col + b * row + c, d * col + e * row + f)
        except ProjError:
            lons = lats = np.full(len(cols), np.inf)
        beyond = np.isfinite(lons) & (np.abs(lons) > 180)  # files in degrees from 0 to 360
        return np.where(beyond, (np.where(beyond, lons, 0.0) + 180) % 360 - 180, lons), lats


def _transformer(wkt: str) -> Transformer:
    """To WGS 84 longitude, latitude; made once per CRS and thread, for making one takes 1,000 times a use."""
    known: OrderedDict[str, Transformer] = _cache.__dict__.setdefault("transformers", OrderedDict())
    if wkt in known:
        known.move_to_end(wkt)
        return known[wkt]
    transformer = Transformer.from_crs(CRS.from_wkt(wkt).to_2d(), _WGS84, always_xy=True)
    known[wkt] = transformer
    if len(known) > _MAX_CACHED:
        known.popitem(last=False)
    return transformer


def _on_earth(lons: npt.NDArray[np.float64], lats: npt.NDArray[np.float64]) -> bool:
    return bool(np.all(np.isfinite(lons) & np.isfinite(lats) & (np.abs(lats) <= 90)))


def _clip(ring: list[tuple[float, float]], meridian: float, *, keep_below: bool) -> list[tuple[float, float]]:
    """The part of a convex ring on one side of a meridian (Sutherland and Hodgman 1974)."""
    kept: list[tuple[float, float]] = []
    for (lon, lat), (next_lon, next_lat) in zip(ring, ring[1:] + ring[:1], strict=True):
        inside, next_inside = (lon <= meridian) == keep_below, (next_lon <= meridian) == keep_below
        if inside:
            kept.append((lon, lat))
        if inside != next_inside:
            share = (meridian - lon) / (next_lon - lon)
            kept.append((meridian, lat + share * (next_lat - lat)))
    return kept


def _closed(ring: list[tuple[float, float]]) -> list[list[float]]:
    """GeoJSON's ring: counterclockwise, the first position again at the end."""
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True))
    ring = ring if area >= 0 else ring[::-1]
    return [list(position) for position in [*ring, ring[0]]]
