"""What a request uploads: GeoTIFFs, or the files of one Landsat delivery, which has one for each band."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model.band_names import LEVEL_1
from model.bands import BANDS
from service.errors import RequestError
from service.http.spool import SpoolFile

TILE_PART = "tile"
QA_PART = "QA_PIXEL"
MTL_PART = "MTL"
DELIVERY_PARTS = (*BANDS, QA_PART, MTL_PART)
EXPECTED = (
    f"expected image/tiff with the file as the body, or multipart/form-data with the file as the part "
    f"{TILE_PART!r}, or with the files of a Landsat delivery as the parts {BANDS[0]} to {BANDS[-1]}"
)

_MAX_NAME = 255  # characters of a file name, as file systems have it
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BAND_SUFFIX = re.compile(r"_SR_B\d\.TIFF?$", re.IGNORECASE)
DELIVERED = re.compile(r"(?P<product>.+)_(?P<part>SR_B\d|QA_PIXEL)\.TIFF?", re.IGNORECASE)
# Of a name, whatever stands around it: the last that could be a band. Collection 1 has sr_band1 and, with
# other flags, pixel_qa.
_BAND = re.compile(
    r"(?:.*_)?((?:SR_)?QA_[A-Z]+|(?:PIXEL|RADSAT)_QA|BQA|ST_(?:B\d+|QA|EMIS|EMSD|ATRAN|CDIST|[DTU]RAD)|(?:SR_)?B(?:AND)?\d{1,2})(?=[_.]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class File:
    """One file: its bytes, in memory or on disk, and the base name it came with (None for a raw body)."""

    data: bytes | SpoolFile | Path
    source: str | None

    @contextmanager
    def content(self) -> Iterator[bytes | Path]:
        """Its bytes, or a path that is good within the `with` block."""
        if isinstance(self.data, SpoolFile):
            with self.data.opened() as path:
                yield path
        else:
            yield self.data

    def close(self) -> None:
        """Frees what was spooled."""
        if isinstance(self.data, SpoolFile):
            self.data.close()


@dataclass(frozen=True, slots=True)
class LinkedFile(File):
    """A file that is elsewhere, at its URL; without content until it is fetched."""

    url: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """The files of one Landsat product as USGS delivers it.

    `bands` are SR_B1 to SR_B7; `source` is the product's name, as far as the files' names tell it.
    """

    bands: tuple[File, ...]
    qa_pixel: File | None
    mtl: bytes | None
    source: str | None

    def close(self) -> None:
        """Frees what was spooled."""
        for file in (*self.bands, self.qa_pixel):
            if file is not None:
                file.close()


Source = File | Delivery


def base_name(name: str | None) -> str | None:
    """The last part of a file name as clients send it, without folders and unprintable characters."""
    if not name:
        return None
    return _UNPRINTABLE.sub("", PurePosixPath(name.replace("\\", "/")).name)[:_MAX_NAME] or None


def product_of(name: str) -> str:
    """The name of a product from that of one of its bands."""
    return _BAND_SUFFIX.sub("", name)


def group(parts: Sequence[tuple[str, File]], mtl: bytes | None = None) -> list[Source]:
    """The rasters that the parts of a form are.

    Args:
        parts: names of the parts and their files, MTL not among them.
        mtl: the content of that part.

    Returns:
        The files named `tile` in their order, or one delivery.

    Raises:
        RequestError: a delivery with missing or repeated bands, with files that by their names are of
            another band or product, one together with tiles, another name.
    """
    tiles: list[Source] = [file for name, file in parts if name == TILE_PART]
    delivered: dict[str, File] = {}
    for name, file in parts:
        if name == TILE_PART:
            continue
        if name not in DELIVERY_PARTS:
            raise RequestError("unknown-parameter", f"unknown file part {name[:100]!r}; {EXPECTED}")
        if name in delivered:
            raise RequestError(
                "bad-parameter", f"the part {name} came twice; expected one delivery in a request"
            )
        delivered[name] = file
    if not delivered and mtl is None:
        return tiles
    if tiles:
        came = ", ".join([*delivered, *([MTL_PART] if mtl is not None else [])])
        raise RequestError(
            "bad-parameter", f"parts named {TILE_PART!r} came together with {came}; expected one or the other"
        )
    missing = [band for band in BANDS if band not in delivered]
    if missing == ["SR_B6"]:
        raise RequestError(
            "missing-coastal",
            "SR_B1 to SR_B5 and SR_B7 came, SR_B6 is missing. If this is TM or ETM+ (Landsat 4 to 7), it has "
            "no coastal band and its order differs (its SR_B1 is blue); expected OLI (Landsat 8 and 9)",
        )
    if missing:
        raise RequestError(
            "wrong-band-count",
            f"the delivery lacks the parts {', '.join(missing)}; expected all of {', '.join(BANDS)}, and "
            f"{QA_PART} and {MTL_PART} if you have them",
        )
    _check_names(delivered)
    first = delivered[BANDS[0]].source
    return [
        Delivery(
            tuple(delivered[band] for band in BANDS),
            delivered.get(QA_PART),
            mtl,
            product_of(first) if first else None,
        )
    ]


def _check_names(delivered: Mapping[str, File]) -> None:
    """Refuses bands that were mixed up, as far as the names that USGS gives to files tell."""
    products: dict[str, str] = {}
    levels: dict[bool, str] = {}
    for name, file in delivered.items():
        source = file.source or ""
        said = _BAND.match(source)
        if said and said[1].upper().replace("BAND", "B") not in (name, name.removeprefix("SR_")):
            raise RequestError(
                "bad-parameter",
                f"the part {name} has the file {file.source!r}; expected the one named …_{name}.TIF",
            )
        if source:
            levels.setdefault(LEVEL_1.match(source) is not None, name)
        if (match := DELIVERED.fullmatch(source)) is not None:
            products.setdefault(match["product"].upper(), name)
    if len(levels) > 1:
        raise RequestError(
            "bad-parameter",
            f"the part {levels[True]} is of a Level-1 product, {levels[False]} is not; expected the files of "
            "one Level-2 product",
        )
    if len(products) > 1:
        (first, one), (second, other) = list(products.items())[:2]
        raise RequestError(
            "bad-parameter",
            f"the part {one} is of {first}, {other} of {second}; expected the files of one product",
        )
