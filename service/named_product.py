"""What files' names say of the product: when it was taken; that it is of Level 1, or of an older sensor."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache

from model.band_names import PLAIN, is_level_1, normal
from model.metadata import Acquisition, MetadataError, parse_datetime
from model.tile_errors import TileWarning
from service.files import File, Source
from service.parameters import TileParameters

# As USGS names products, and so whoever makes one file of the several that they have.
_DAY = re.compile(r"L[COTEM]\d{2}_L\d[A-Z]{2}_\d{6}_(\d{4})(\d\d)(\d\d)_", re.IGNORECASE)
_NO_COASTAL = re.compile(r"L[TEM]0[1-7]_L[12]", re.IGNORECASE)


def day(source: Source) -> Acquisition | None:
    """When a product was taken, by its name."""
    found = _DAY.match(source.source or "")
    with suppress(MetadataError):  # there is no such day
        return found and parse_datetime("-".join(found.groups()))
    return None


def doubts(
    source: Source, descriptions: tuple[str | None, ...], parameters: TileParameters, units: str
) -> list[TileWarning]:
    """Warn of a product whose bands or numbers are others; a delivery of such files is refused.

    Args:
        source: a file, by whose name it may be told.
        descriptions: names of its bands.
        parameters: what the request says of it.
        units: that its values were taken for.
    """
    if not isinstance(source, File):
        return []
    name, found = source.source or "", []
    if _NO_COASTAL.match(name):
        found.append(
            TileWarning(
                "contradicted-names",
                f"the file is named {name[:100]!r}: TM and ETM+ (Landsat 4 to 7) have no coastal band, and "
                "their order differs; expected OLI (Landsat 8 and 9)",
            )
        )
    if units != "dn":
        return found
    if is_level_1(name):
        found.append(
            TileWarning(
                "contradicted-names",
                f"the file is named {name[:100]!r}: numbers of Level 1 are no surface reflectance, but were "
                "taken as DN of Level 2",
            )
        )
    elif parameters.units == "auto" and not parameters.bands and _numbered(descriptions):
        found.append(
            TileWarning(
                "assumed-dn",
                "the bands are named B1 to B7, as those of Level 1, which are no surface reflectance; they "
                "were taken as DN of Level 2, whose bands are SR_B1 to SR_B7: send units=dn if they are",
            )
        )
    return found


@lru_cache(maxsize=64)  # the files of a data set have the same
def _numbered(descriptions: tuple[str | None, ...]) -> bool:
    return set(PLAIN) <= {normal(text) for text in descriptions}
