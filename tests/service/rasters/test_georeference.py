"""Places on the ground, in every kind of CRS."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from service.rasters.georeference import Georeference

WHOLE = (0, 0, 40, 40)
GEOD = Geod(ellps="WGS84")


def place(crs: str, x: float, y: float, pixel: float = 30.0) -> Georeference:
    return Georeference(crs, CRS.from_user_input(crs).to_wkt(), (pixel, 0.0, x, 0.0, -pixel, y))


def around(crs: str, lat: float, lon: float, pixel: float = 30.0) -> Georeference:
    """A raster of 40 x 40 whose centre is there."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    return place(crs, x - 20 * pixel, y + 20 * pixel, pixel)


def signed_area(ring) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring)) / 2


@pytest.mark.parametrize(
    ("crs", "lat", "lon", "pixel", "gsd"),
    [
        ("EPSG:32633", 47.8, 13.5, 30.0, 30.0),
        ("EPSG:32733", -33.9, 18.4, 30.0, 30.0),
        ("EPSG:3035", 52.0, 10.0, 30.0, 30.0),
        ("EPSG:3413", 70.0, -45.0, 30.0, 30.0),
        ("EPSG:3857", 60.0, 10.0, 30.0, 15.0),  # Web Mercator stretches by 1 / cos(lat)
        ("EPSG:4326", 0.0, 10.0, 30 / 111_000, 30.0),
        ("EPSG:4326", 60.0, 10.0, 30 / 111_000, 21.3),  # half as wide: the root of 30 * 15
        ("EPSG:2263", 40.7, -74.0, 100.0, 30.48),  # US survey feet
    ],
)
def test_centre_and_pixel_size(crs, lat, lon, pixel, gsd):
    here = around(crs, lat, lon, pixel)
    assert here.center(WHOLE) == pytest.approx((lat, lon), abs=1e-5)
    assert here.gsd_m(WHOLE) == pytest.approx(gsd, rel=0.02)


def test_a_window_has_its_own_place():
    here = place("EPSG:32633", 500_000, 5_000_000)
    lat, lon = here.center((0, 0, 40, 40))
    south_lat, south_lon = here.center((40, 0, 40, 40))
    assert GEOD.inv(lon, lat, south_lon, south_lat)[2] == pytest.approx(1200, rel=1e-3)
    assert here.footprint((40, 0, 40, 40)) != here.footprint((0, 0, 40, 40))
    assert here.distance_m((0, 0, 40, 40), south_lat, south_lon) == pytest.approx(1200, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.floats(-80, 80), st.floats(-179.9, 179.9))
def test_footprints_are_valid_rings_around_the_centre(lat, lon):
    here = around("EPSG:4326", lat, lon, 3e-4)
    polygon = here.footprint(WHOLE)
    assert polygon["type"] == "Polygon"
    (ring,) = polygon["coordinates"]
    assert len(ring) == 5
    assert ring[0] == ring[-1]
    assert signed_area(ring) > 0  # counterclockwise
    center = here.center(WHOLE)
    np.testing.assert_allclose(np.mean(ring[:4], axis=0), (center[1], center[0]), atol=1e-6)


def test_a_rotated_raster():
    here = Georeference(
        "EPSG:32633", CRS.from_epsg(32633).to_wkt(), (0.0, 30.0, 500_000, 30.0, 0.0, 5_000_000)
    )
    assert here.gsd_m(WHOLE) == pytest.approx(30, rel=1e-3)
    (ring,) = here.footprint(WHOLE)["coordinates"]
    assert signed_area(ring) > 0


def test_across_the_antimeridian_the_footprint_is_cut():
    here = around("EPSG:32601", 65.0, 180.0)
    shape = here.footprint(WHOLE)
    assert shape["type"] == "MultiPolygon"
    east, west = (polygon[0] for polygon in shape["coordinates"])
    assert all(179.9 < lon <= 180 for lon, _ in east)
    assert all(-180 <= lon < -179.9 for lon, _ in west)
    for ring in (east, west):
        assert ring[0] == ring[-1]
        assert signed_area(ring) > 0
    whole = sum(signed_area(ring) for ring in (east, west))
    moved = around("EPSG:32601", 65.0, -177.0).footprint(WHOLE)["coordinates"][0]
    assert whole == pytest.approx(signed_area(moved), rel=0.01)


def test_degrees_from_0_to_360():
    here = place("EPSG:4326", 350.0, 10.0, 3e-4)
    lat, lon = here.center(WHOLE)
    assert (lat, lon) == pytest.approx((10 - 20 * 3e-4, -10 + 20 * 3e-4))
    (ring,) = here.footprint(WHOLE)["coordinates"]
    assert all(-10.001 < x < -9.9 for x, _ in ring)


@pytest.mark.parametrize(
    ("west", "sign"),
    [
        (180.0, -1),
        (180 - 40 * 3e-4, 1),
        (-180.0, -1),
        (-180 - 40 * 3e-4, 1),
        (180 - 1e-12, -1),
        (-180 - 1e-12, -1),
    ],
)
def test_a_window_that_ends_at_the_antimeridian_is_one_polygon(west: float, sign: int):
    shape = place("EPSG:4326", west, 10.0, 3e-4).footprint(WHOLE)
    assert shape["type"] == "Polygon"
    (ring,) = shape["coordinates"]
    assert len(ring) == 5
    assert all(179.9 < lon * sign <= 180 for lon, _ in ring)
    assert signed_area(ring) == pytest.approx((40 * 3e-4) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    "here",
    [
        place("EPSG:32633", 1e30, 1e30),
        place("EPSG:4326", 0.0, 95.0, 3e-4),
        place("EPSG:32633", 5e5, 5e6, 1e300),
        place("EPSG:4978", 4e6, 5e6),  # x and y through the Earth
        Georeference("nonsense", "NONSENSE[", (30.0, 0.0, 0.0, 0.0, -30.0, 0.0)),
        Georeference("site", 'LOCAL_CS["site",UNIT["metre",1]]', (30.0, 0.0, 0.0, 0.0, -30.0, 0.0)),
    ],
)
def test_nowhere(here):
    assert here.center(WHOLE) is None
    assert here.gsd_m(WHOLE) is None
    assert here.footprint(WHOLE) is None
    assert here.distance_m(WHOLE, 0, 0) is None


def test_many_crs_do_not_pile_up():
    from service.rasters import georeference

    for zone in range(1, 61):
        for south in (0, 100):
            around(f"EPSG:{32600 + south + zone}", 0.0, zone * 6 - 183.0).center(WHOLE)
    assert len(georeference._cache.transformers) == georeference._MAX_CACHED


@pytest.mark.parametrize(
    ("crs", "west", "east", "parts"),
    [
        ("EPSG:4326", -180, 180, [(-180, 180)]),
        ("EPSG:4326", -120, 120, [(-120, 120)]),
        ("EPSG:4326", 0, 360, [(-180, 180)]),
        ("EPSG:4326", -180.5, 179.5, [(-180, 180)]),
        ("EPSG:4326", 10, 350, [(10, 180), (-180, -10)]),
        ("EPSG:4326", -190, 10, [(170, 180), (-180, 10)]),
        ("EPSG:4230", 10, 350, [(10, 180), (-180, -10)]),  # of which PROJ says -10
        ("EPSG:3857", -20037508.342, 20037508.342, [(-180, 180)]),
    ],
)
def test_windows_that_are_wide(crs: str, west: float, east: float, parts: list[tuple[float, float]]) -> None:
    """As wide as they are, and not what is left of the globe."""
    wkt = CRS.from_user_input(crs).to_wkt()
    shape = Georeference(crs, wkt, ((east - west) / 40, 0.0, west, 0.0, -1.0, 45.0)).footprint(WHOLE)
    found = shapely.geometry.shape(shape)
    assert found.is_valid
    polygons = [found] if shape["type"] == "Polygon" else list(found.geoms)
    for polygon, expected in zip(polygons, parts, strict=True):
        assert polygon.exterior.is_ccw
        first, south, last, north = polygon.bounds
        assert (first, last) == pytest.approx(expected, abs=0.01)
        assert polygon.area == pytest.approx((last - first) * (north - south), rel=1e-4)


def test_a_window_near_a_pole_follows_its_edges() -> None:
    """Beside it, a straight line between two corners would be far from the edge."""
    polar = place("EPSG:3413", 50, -50)
    footprint = shapely.geometry.shape(polar.footprint(WHOLE))
    to_plane = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
    assert footprint.is_valid
    for parts in getattr(footprint, "geoms", [footprint]):
        assert parts.exterior.is_ccw
    flat = shapely.transform(
        footprint.segmentize(0.1), lambda found: np.column_stack(to_plane.transform(*found.T))
    )
    assert flat.area == pytest.approx(1200**2, rel=0.01)


@pytest.mark.parametrize(
    "here",
    [
        place("EPSG:3031", -600, 600),
        place("EPSG:3413", -600, 300),
        place("EPSG:3031", -1.5e-322, 0),  # a corner; longitudes are what rounding makes of them
        Georeference("EPSG:4326", CRS.from_epsg(4326).to_wkt(), (9.1, 0.0, -182.0, 0.0, -1.0, 50.0)),
    ],
    ids=["around a pole", "with a pole", "to a pole", "more than once around"],
)
def test_windows_whose_footprint_is_no_polygon(here: Georeference) -> None:
    assert here.center(WHOLE) is not None
    assert here.footprint(WHOLE) is None
