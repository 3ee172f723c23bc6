"""One file and what is said of it → what the network is fed, and what the answer says of it.

Runs in a worker thread: reading a raster takes longer than everything else around the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import metadata, tiles
from model.bundle import Bundle
from model.metadata import Acquisition, MetadataError
from model.tile_errors import TileWarning
from service import geotiff
from service.cache import tile_hash
from service.parameters import Fit, TileParameters
from service.files import File


@dataclass(frozen=True, slots=True)
class DescribedTile:
    """What is known of a tile without its pixels.

    `hash` is of everything that the network sees; `fields` are those of the answer's item that do not depend
    on the network.
    """

    hash: bytes
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreparedTile(DescribedTile):
    """A tile ready for the engine: `dn` is uint16 (7, 40, 40), filled; `encoding` is float32 (4, 2)."""

    dn: NDArray[np.uint16]
    encoding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Place:
    lat: float | None
    lon: float | None
    source: str


def prepare(
    file: File, parameters: TileParameters, fit: Fit | None, bundle: Bundle, limits: geotiff.Limits
) -> PreparedTile:
    """Reads a GeoTIFF and prepares its tile as the bundle was trained.

    Args:
        file: what was uploaded.
        parameters: what the request says of it.
        fit: how the raster becomes 40 x 40 px; None decides by its size.
        bundle: whose rules of preparation hold.
        limits: of the raster, checked before its pixels are read.

    Raises:
        GeotiffError: the file cannot be read, or is too large.
        TileError: no tile can be made of the raster.
        MetadataError: a datetime or place that is none.
    """
    if fit == "grid":
        raise tiles.TileError(
            "bad-parameter",
            "fit is 'grid', which this version does not have yet; expected 'crop' or 'resize'",
        )
    # What costs nothing to check comes before the raster.
    acquisition = metadata.parse_datetime(parameters.datetime) if parameters.datetime else None
    metadata.check_position(parameters.lat, parameters.lon)
    with file.content() as content:
        raster = geotiff.read(content, limits=limits)
    seven = tiles.prepare(
        raster.pixels,
        nodata=raster.nodata,
        descriptions=raster.descriptions,
        bands=parameters.bands,
        units=parameters.units,
        scale=parameters.scale,
        offset=parameters.offset,
        file_scales=raster.scales,
        file_offsets=raster.offsets,
        source=file.source,
    )
    tile = tiles.fit(seven.dn, seven.valid, fit)
    warnings = [*seven.warnings, *tiles.check_valid(tile.valid), *tiles.pixel_size_warning(raster.gsd_m)]
    acquisition, datetime_source = _when(acquisition, parameters, raster, warnings)
    place = _where(parameters, raster, warnings)
    encoding = metadata.encode(
        acquisition, place.lat, place.lon, hour_convention=bundle.preprocessing.hour_convention
    )
    sources = {
        "datetime": datetime_source,
        "hour": datetime_source if acquisition is not None and acquisition.has_hour else "missing",
        "location": place.source,
    }
    if not bundle.preprocessing.missing_metadata_trained and "missing" in sources.values():
        missing = ", ".join(name for name, source in sources.items() if source == "missing")
        warnings.append(
            TileWarning(
                "missing-metadata-untrained",
                f"{missing} missing; this model was not trained with missing metadata",
            )
        )
    if not bundle.trained:
        warnings.append(
            TileWarning(
                "untrained-model", "this bundle's weights are random; its embeddings carry no meaning"
            )
        )
    filled = tiles.fill(tile.dn, tile.valid, bundle.preprocessing.nodata_fill, bundle.preprocessing.mean)
    return PreparedTile(
        dn=filled,
        encoding=encoding,
        hash=tile_hash(filled, encoding),
        fields={
            "id": parameters.id,
            "source": file.source,
            "datetime": acquisition.text if acquisition is not None else None,
            "lat": place.lat,
            "lon": place.lon,
            "metadata_source": sources,
            "footprint": raster.footprint(tile.window),
            "crs": raster.crs,
            "units": seven.units,
            "valid_fraction": tile.valid_fraction,
            "warnings": [{"code": w.code, "message": w.message} for w in warnings],
        },
    )


def _when(
    given: Acquisition | None,
    parameters: TileParameters,
    raster: geotiff.Raster,
    warnings: list[TileWarning],
) -> tuple[Acquisition | None, str]:
    """The acquisition time that is used, and whose it is."""
    source = parameters.datetime_source
    if source != "request" and given is not None:
        warnings.append(
            TileWarning("unused-parameter", f"datetime is not used, since datetime_source is {source!r}")
        )
    if source == "request" and given is not None:
        if given.assumed_utc:
            warnings.append(
                TileWarning(
                    "assumed-utc", f"datetime {parameters.datetime!r} has no zone and was taken as UTC"
                )
            )
        return given, "request"
    if source == "tag":
        if raster.tag_datetime is None:
            warnings.append(TileWarning("missing-datetime-tag", "the file has no TIFFTAG_DATETIME"))
            return None, "missing"
        try:
            return metadata.parse_tiff_datetime(raster.tag_datetime), "tag"
        except MetadataError as error:
            warnings.append(TileWarning("unreadable-datetime-tag", str(error)))
    return None, "missing"


def _where(parameters: TileParameters, raster: geotiff.Raster, warnings: list[TileWarning]) -> _Place:
    """The place that is used, and whose it is."""
    source, lat, lon = parameters.location_source, parameters.lat, parameters.lon
    if lat is not None and lon is not None:
        if source in ("auto", "request"):
            warnings += _far_from_file(lat, lon, raster)
            return _Place(lat, lon, "request")
        warnings.append(
            TileWarning("unused-parameter", f"lat and lon are not used, since location_source is {source!r}")
        )
    if source in ("auto", "file"):
        center = raster.center
        if center is not None:
            return _Place(*center, "file")
        if source == "file":
            warnings.append(TileWarning("missing-georeferencing", "the file does not say where it is"))
    return _Place(None, None, "missing")


def _far_from_file(lat: float, lon: float, raster: geotiff.Raster) -> list[TileWarning]:
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
