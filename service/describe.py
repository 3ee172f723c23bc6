"""What an answer says of a tile beside its embedding: when, where, and what to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import metadata, tiles
from model.bundle import Bundle
from model.metadata import Acquisition
from model.tile_errors import TileWarning
from service import nodata
from service.cache import tile_hash
from service.files import Source
from service.named_product import day, doubts
from service.parameters import TileParameters
from service.rasters import geotiff, quality
from service.when_and_where import Place, night, orientation, when


class DescribedTile:
    """What is known of a tile without its pixels.

    Args:
        digest: of everything that the network sees.
        fields: those of the answer's item that do not depend on the network.
    """

    __slots__ = ("_hash", "fields")

    def __init__(self, digest: bytes, fields: dict[str, Any]) -> None:
        self._hash = digest
        self.fields = fields

    @property
    def hash(self) -> bytes:
        """Of everything that the network sees."""
        return self._hash


class PreparedTile(DescribedTile):
    """A tile ready for the engine.

    Args:
        fields: as above.
        dn: uint16 (7, 40, 40), filled.
        encoding: float32 (4, 2).
    """

    __slots__ = ("dn", "encoding")

    def __init__(self, fields: dict[str, Any], dn: NDArray[np.uint16], encoding: NDArray[np.float32]) -> None:
        super().__init__(b"", fields)
        self.dn = dn
        self.encoding = encoding

    @property
    def hash(self) -> bytes:
        """Found when it is first asked for: a lone tile that passes by the cache needs none."""
        if not self._hash:
            self._hash = tile_hash(self.dn, self.encoding)
        return self._hash

    def hashed(self) -> PreparedTile:
        """Itself, its hash found by the thread that prepares it and not on the event loop."""
        self._hash = self.hash
        return self


class Said:
    """What the request says of a source, checked before its pixels are read.

    Raises:
        MetadataError: a datetime or place that is none.
    """

    def __init__(self, source: Source, parameters: TileParameters, bundle: Bundle) -> None:
        self.source, self.parameters, self.bundle = source, parameters, bundle
        self.acquisition = metadata.parse_datetime(parameters.datetime) if parameters.datetime else None
        metadata.check_position(parameters.lat, parameters.lon)

    def of(self, header: geotiff.Header, acquired: Acquisition | None, units: str) -> Description:
        """The description of the tiles of the source.

        Args:
            header: of the raster.
            acquired: when, as a delivery's MTL says.
            units: of the values.
        """
        description = Description(self, header, units)
        description.acquisition, description.datetime_source = when(
            self.acquisition, acquired, day(self.source), self.parameters, header, description.warnings
        )
        description.warnings += orientation(header)
        description.warnings += _further_pages(header.pages)
        description.warnings += nodata.warning(self.parameters.nodata, header.dtype)
        description.warnings += doubts(self.source, header.descriptions, self.parameters, units)
        return description


@dataclass
class Description:
    """What the tiles of one raster have in common; `warnings` are those of all of them."""

    said: Said
    header: geotiff.Header
    units: str
    acquisition: Acquisition | None = None
    datetime_source: str = "missing"
    warnings: list[TileWarning] = field(default_factory=list)

    def tile(
        self,
        tile: tiles.Tile,
        place: Place,
        flags: NDArray[np.uint16] | None,
        identity: dict[str, Any] | None = None,
    ) -> PreparedTile:
        """A tile ready for the engine.

        Args:
            tile: cut out of the raster.
            place: of it.
            flags: QA_PIXEL of its pixels, if it came.
            identity: fields of a window in a grid: id, row, col, window.
        """
        bundle, acquisition = self.said.bundle, self.acquisition
        rules = bundle.preprocessing
        encoding = metadata.encode(acquisition, place.lat, place.lon, hour_convention=rules.hour_convention)
        sources = {
            "datetime": self.datetime_source,
            "hour": self.datetime_source if acquisition is not None and acquisition.has_hour else "missing",
            "location": place.source,
        }
        warnings = [
            *self.warnings,
            *tiles.check_valid(tile.valid),
            *tiles.saturation_warning(tile.dn, tile.valid),
            *night(acquisition, place),
        ]
        judged: dict[str, Any] = {}
        if flags is not None:
            cloudy = quality.cloud_fraction(flags)
            warnings += quality.warning(cloudy)
            judged = {"cloud_fraction": cloudy, "quality": quality.shares(flags)}
        warnings += _of_bundle(bundle, sources)
        filled = tiles.fill(tile.dn, tile.valid, rules.nodata_fill, rules.mean)
        fields = {
            "id": self.said.parameters.id,
            "source": self.said.source.source,
            "datetime": acquisition.text if acquisition is not None else None,
            "lat": place.lat,
            "lon": place.lon,
            "metadata_source": sources,
            "footprint": self.header.footprint(tile.window),
            "crs": self.header.crs,
            "units": self.units,
            "valid_fraction": tile.valid_fraction,
            **judged,
            **(identity or {}),
            "warnings": [{"code": w.code, "message": w.message} for w in warnings],
        }
        return PreparedTile(fields, filled, encoding)


def _further_pages(pages: int) -> list[TileWarning]:
    if pages == 1:
        return []
    return [
        TileWarning(
            "further-pages",
            f"the file has {pages} pages, of which the first was read; expected a file for each",
        )
    ]


def _of_bundle(bundle: Bundle, sources: dict[str, str]) -> list[TileWarning]:
    warnings = []
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
    return warnings
