"""When and where a tile was taken: by the request, else by the file, with a warning where it is doubtful."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from model import metadata, tiles
from model.metadata import Acquisition, MetadataError
from model.tile_errors import TileWarning
from service import sun
from service.parameters import TileParameters
from service.rasters import geotiff
from service.rasters.gdal_tags import ACQUIRED
from service.rasters.georeference import Georeference, PixelWindow

_COMPASS = ("north", "east", "south", "west")
_FIRST = datetime(2013, 2, 11, tzinfo=UTC)  # the launch of Landsat 8


@dataclass(frozen=True, slots=True)
class Place:
    """A place that is used, and whose it is: `request`, `file` or `missing`."""

    lat: float | None
    lon: float | None
    source: str


def when(
    given: Acquisition | None,
    acquired: Acquisition | None,
    named: Acquisition | None,
    parameters: TileParameters,
    raster: geotiff.Header,
    warnings: list[TileWarning],
) -> tuple[Acquisition | None, str]:
    """The acquisition time that is used, and whose it is.

    Args:
        given: with the request.
        acquired: as a delivery's MTL says.
        named: the day that is in the files' names; only held against the request's.
        parameters: what else the request says of it.
        raster: with its tags.
        warnings: are added to.
    """
    found, source = _found(given, acquired, parameters, raster, warnings)
    if source == "request" and found is not None:
        warnings += _another(found, acquired, named, raster)
    if found is not None and not _FIRST <= found.when <= datetime.now(UTC) + timedelta(days=1):
        came = "in the future" if found.when > _FIRST else "before Landsat 8, the first of the seven bands"
        warnings.append(TileWarning("unlikely-datetime", f"datetime {found.text} is {came}; it was used"))
    return found, source


def _found(
    given: Acquisition | None,
    acquired: Acquisition | None,
    parameters: TileParameters,
    raster: geotiff.Header,
    warnings: list[TileWarning],
) -> tuple[Acquisition | None, str]:
    source = parameters.datetime_source
    if source != "request" and given is not None:
        warnings.append(
            TileWarning("unused-parameter", f"datetime is not used, since datetime_source is {source!r}")
        )
    if source == "request" and given is not None:
        warnings += _assumed_utc(given, f"datetime {parameters.datetime!r}")
        return given, "request"
    if source == "request" and acquired is not None:
        return acquired, "file"
    if source == "request" and raster.acquired is not None:
        try:
            tagged = metadata.parse_datetime(raster.acquired)
        except MetadataError as error:
            warnings.append(TileWarning("unreadable-datetime-tag", f"the tag {ACQUIRED}: {error}"))
            return None, "missing"
        warnings += _assumed_utc(tagged, f"the tag {ACQUIRED}, {raster.acquired!r},")
        return tagged, "file"
    if source == "tag":
        if raster.tag_datetime is None:
            warnings.append(TileWarning("missing-datetime-tag", "the file has no TIFFTAG_DATETIME"))
            return None, "missing"
        try:
            return metadata.parse_tiff_datetime(raster.tag_datetime), "tag"
        except MetadataError as error:
            warnings.append(TileWarning("unreadable-datetime-tag", str(error)))
    return None, "missing"


def _another(
    given: Acquisition, acquired: Acquisition | None, named: Acquisition | None, raster: geotiff.Header
) -> list[TileWarning]:
    """A given time that is not the file's: one of the two is another scene's."""
    file = "file"
    if acquired is None and raster.acquired is not None:
        with suppress(MetadataError):
            acquired = metadata.parse_datetime(raster.acquired)
    if acquired is None:
        acquired, file = named, "file's name"
    if acquired is None or abs(given.when.date() - acquired.when.date()) <= timedelta(days=1):
        return []
    return [
        TileWarning(
            "other-datetime",
            f"the request says {given.text}, the {file} {acquired.text}; the request's was used",
        )
    ]


def night(acquisition: Acquisition | None, place: Place) -> list[TileWarning]:
    """A time and a place at which there was nothing to see: a local time, or a sign that is lost."""
    if acquisition is None or not acquisition.has_hour or place.lat is None or place.lon is None:
        return []
    height = sun.elevation(acquisition.when, place.lat, place.lon)
    if height >= 0:
        return []
    return [
        TileWarning(
            "sun-below-horizon",
            f"on {acquisition.text} the sun is {-height:.0f} degrees below the horizon at {place.lat:.2f}, "
            f"{place.lon:.2f}; expected a time in UTC, and longitudes that are negative in the west",
        )
    ]


def _assumed_utc(acquisition: Acquisition, named: str) -> list[TileWarning]:
    if not acquisition.assumed_utc:
        return []
    return [TileWarning("assumed-utc", f"{named} has no zone and was taken as UTC")]


def where(parameters: TileParameters, raster: geotiff.Header, warnings: list[TileWarning]) -> Place:
    """The place that is used, and whose it is."""
    source, lat, lon = parameters.location_source, parameters.lat, parameters.lon
    if lat is not None and lon is not None:
        if source in ("auto", "request"):
            warnings += _far_from_file(lat, lon, raster)
            return Place(lat, lon, "request")
        warnings.append(
            TileWarning("unused-parameter", f"lat and lon are not used, since location_source is {source!r}")
        )
    if source in ("auto", "file"):
        center = raster.center
        if center is not None:
            return Place(*center, "file")
        if raster.by_points:
            warnings.append(
                TileWarning(
                    "unresolved-georeferencing",
                    "the file is placed by ground control points or RPCs, which are not resolved; expected a "
                    "CRS and a transform, as gdalwarp gives it",
                )
            )
        elif raster.place is not None:
            warnings.append(_unresolved(raster.place, raster.whole))
        elif source == "file":
            warnings.append(TileWarning("missing-georeferencing", "the file does not say where it is"))
    return Place(None, None, "missing")


def _unresolved(place: Georeference, whole: PixelWindow) -> TileWarning:
    a, b, c, d, e, f = place.transform
    *_, height, width = whole
    x, y = a * width / 2 + b * height / 2 + c, d * width / 2 + e * height / 2 + f
    return TileWarning(
        "unresolved-georeferencing",
        f"the file's centre is at x = {x:.7g}, y = {y:.7g} of the CRS {place.crs[:60]}, which is no place in "
        "WGS 84; expected a CRS and a transform that belong together, x (east) before y (north)",
    )


def orientation(raster: geotiff.Header) -> list[TileWarning]:
    """The network knows the ground with north up, as Landsat is delivered outside of Antarctica."""
    found = None if raster.place is None else raster.place.directions(raster.whole)
    if found is None:
        return []
    columns, rows = (round(direction / 90) % 4 for direction in found)
    if _COMPASS[columns] == "east" and _COMPASS[rows] == "south":
        return []
    return [
        TileWarning(
            "not-north-up",
            f"rows run from {_COMPASS[rows - 2]} to {_COMPASS[rows]}, columns from {_COMPASS[columns - 2]} "
            f"to {_COMPASS[columns]}: the network sees the ground mirrored or turned, which changes what it "
            "makes of it; expected north up, as gdalwarp gives it",
        )
    ]


def _far_from_file(lat: float, lon: float, raster: geotiff.Header) -> list[TileWarning]:
    """A given place that is not where the georeferencing says: one of the two is another tile's."""
    if raster.place is None:
        return []
    distance = raster.place.distance_m(raster.whole, lat, lon)
    size = max(raster.width, raster.height) * (raster.gsd_m or tiles.GSD)
    if distance is None or distance <= size:
        return []
    return [
        TileWarning(
            "far-from-file",
            f"lat and lon lie {distance / 1000:,.1f} km from the file's centre, further than its size; "
            "they were used",
        )
    ]
