"""What GDAL made of GeoKeys, kept: the same keys are the same CRS in the next file.

The CRS of GeoKeys is decided in thousands of lines of GDAL and PROJ, of which a second opinion would differ
somewhere. So none is formed here: the first file with certain keys is read by GDAL, and what it says is what
the next file with the very same bytes of keys is told. Neighbouring tiles differ in their tie points only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from service.rasters.georeference import Affine, Georeference, placed
from service.rasters.plain_tiff import GeoKeys, PlainTiff

_MAX_KEPT = 256  # kinds of keys, of some kilobytes each; whoever invents more makes GDAL read more


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What keys say: name and WKT of the CRS if there is one, and what tie points are."""

    crs: tuple[str, str] | None
    point: bool


_known: OrderedDict[GeoKeys, _Meaning] = OrderedDict()
_lock = threading.Lock()


class UnknownError(LookupError):
    """GDAL has not been asked for these keys yet."""


def place(tiff: PlainTiff) -> Georeference | None:
    """Where a plain TIFF lies; None where it does not say so.

    Raises:
        UnknownError: no file with these keys was learned from.
    """
    if tiff.pixel_size is None:
        return None
    with _lock:
        meaning = _known.get(tiff.geo_keys)
        if meaning is None:
            raise UnknownError
        _known.move_to_end(tiff.geo_keys)
    transform = tiff.transform(point=meaning.point)
    return None if meaning.crs is None or transform is None else placed(*meaning.crs, transform)


def learn(tiff: PlainTiff, crs: tuple[str, str] | None, transform: Affine) -> None:
    """Keeps what GDAL said of a file, unless its transform is not the one that the tags say.

    Args:
        tiff: the file's tags.
        crs: name and WKT, as GDAL gave them; None if it gave none.
        transform: as GDAL gave it.
    """
    matching = [point for point in (False, True) if tiff.transform(point=point) == transform]
    if len(matching) != 1:
        return
    with _lock:
        _known[tiff.geo_keys] = _Meaning(crs, matching[0])
        if len(_known) > _MAX_KEPT:
            _known.popitem(last=False)


def forget() -> None:
    """Forgets all that was learned."""
    with _lock:
        _known.clear()
