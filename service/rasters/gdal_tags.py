"""The texts that GDAL puts into a TIFF, as far as it writes them itself: band names, scales, nodata."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# What GDAL writes, without anything that it would unescape, trim or take for another number.
_PLAIN = r"[!-%'-;=?-~]"
_TEXT = rf"{_PLAIN}(?:[ -%'-;=?-~]*{_PLAIN})?"
_ITEM = re.compile(
    rf'  <Item name="(\w+)"(?: sample="(\d{{1,4}})"(?: role="(\w+)")?)?( domain="rio_creation_kwds")?>'
    rf"({_TEXT})</Item>\n",
    re.ASCII,
)
ACQUIRED = "ACQUISITION_DATETIME"  # `landmoe stack` writes it: RFC 3339, when the scene was taken
_OPEN, _CLOSE = "<GDALMetadata>\n", "</GDALMetadata>"
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:e[+-]\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,10}", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class BandTags:
    """What GDAL_METADATA says of the bands, and when they were acquired; 1, 0 and None if it says nothing."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    acquired: str | None = None


@lru_cache(maxsize=256)  # the files of a data set say the same; texts are of a few kilobytes at most
def band_tags(metadata: bytes | None, count: int) -> BandTags | None:
    """The scales, offsets and names of `count` bands; None if the XML is not quite as GDAL writes it.

    Args:
        metadata: ASCII; None where the file has none.
        count: of bands.
    """
    scales, offsets = [1.0] * count, [0.0] * count
    descriptions: list[str | None] = [None] * count
    acquired = None
    if metadata is not None:
        items = metadata.decode("ascii").removesuffix("\n")
        if not items.startswith(_OPEN) or not items.endswith(_CLOSE):
            return None
        at, end = len(_OPEN), len(items) - len(_CLOSE)
        while at < end:
            item = _ITEM.match(items, at, end)
            if item is None:
                return None
            at = item.end()
            name, sample, role, domain, text = item.groups()
            if sample is None:
                if name.upper().startswith("TIFFTAG"):  # it would stand in for the tag
                    return None
                if name.upper() == ACQUIRED and domain is None:  # GDAL heeds no case
                    acquired = text
                continue
            band = int(sample)
            if band >= count:
                return None
            role = role and role.lower()  # as GDAL does
            if role == "colorinterp":  # which says again what is alpha
                return None
            if role == "description":
                descriptions[band] = text
            elif role in ("scale", "offset"):
                if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
                    return None
                (scales if role == "scale" else offsets)[band] = float(text)
    return BandTags(tuple(scales), tuple(offsets), tuple(descriptions), acquired)


@lru_cache(maxsize=64)
def nodata_value(text: bytes, dtype: str) -> float | None:
    """GDAL_NODATA as a number that pixels of this type can have; None if it is anything else.

    Args:
        text: ASCII.
        dtype: numpy's code of the pixels.
    """
    said = text.decode("ascii")
    if dtype[0] in "ui":
        limits = np.iinfo(dtype)
        return float(said) if _WHOLE.fullmatch(said) and limits.min <= int(said) <= limits.max else None
    if said == "nan":
        return float("nan")
    if not _NUMBER.fullmatch(said) or not math.isfinite(value := float(said)):
        return None
    return value if dtype == "f8" or float(np.float32(value)) == value else None


def datetime_text(text: bytes) -> str | None:
    """DateTime as it stands; None if it is empty or has control characters."""
    said = text.decode("ascii")
    return said if _PRINTABLE.fullmatch(said) else None
