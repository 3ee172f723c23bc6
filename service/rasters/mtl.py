"""The MTL file of a Landsat product: which satellite, which sensor, when. As text (ODL), XML or JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat

import orjson

from model.band_names import is_level_1
from model.metadata import Acquisition, MetadataError, parse_datetime
from model.tile_errors import TileError

MAX_BYTES = 1 << 20  # real ones have 15 to 35 kB
# What comes first counts: a Level-2 file repeats some names for the Level-1 product that it was made of.
_WANTED = (
    "SPACECRAFT_ID",
    "SENSOR_ID",
    "DATE_ACQUIRED",
    "SCENE_CENTER_TIME",
    "LANDSAT_PRODUCT_ID",
    "PROCESSING_LEVEL",
)
_MAX_DEPTH = 32
_EXPECTED = "expected the _MTL.txt, _MTL.xml or _MTL.json of a Landsat product"
_PRODUCT = re.compile(r"L[A-Z]\d{2}_L\d\w{2}_\d{6}_\d{8}_\d{8}_\d{2}_\w\w", re.IGNORECASE)
_NOT_OLI = re.compile(r"L[A-Z]0?([1-7])_", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mtl:
    """What an MTL file tells, None where it does not.

    `level` is that of the processing, such as L2SP; `acquired` is the time of the scene's centre.
    """

    spacecraft: str | None
    sensor: str | None
    level: str | None
    product: str | None
    acquired: Acquisition | None


def parse(data: bytes) -> Mtl:
    """Reads an MTL file.

    Raises:
        TileError: `bad-parameter` for something else, or for a time that cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise TileError("bad-parameter", f"MTL has {len(data):,} bytes; expected at most {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise TileError("bad-parameter", f"MTL is not UTF-8 text; {_EXPECTED}") from error
    if text.startswith("{"):
        found = _from_json(text)
    elif text.startswith("<"):
        found = _from_xml(text)
    else:
        found = _from_odl(text)
    if not found:
        raise TileError("bad-parameter", f"MTL names neither satellite nor time; {_EXPECTED}")
    day, time = found.get("DATE_ACQUIRED"), found.get("SCENE_CENTER_TIME")
    try:
        acquired = None if day is None else parse_datetime(f"{day}T{time}" if time else day)
    except MetadataError as error:
        raise TileError("bad-parameter", f"MTL: {error}") from error
    return Mtl(
        found.get("SPACECRAFT_ID"),
        found.get("SENSOR_ID"),
        found.get("PROCESSING_LEVEL"),
        found.get("LANDSAT_PRODUCT_ID"),
        acquired,
    )


def check_product(mtl: Mtl | None, name: str | None) -> None:
    """Refuses products that are no surface reflectance, or whose SR_B1 is not the coastal band.

    Args:
        mtl: of the product, if it came.
        name: of its files, which begins with the satellite (LT05, LE07, LC08).

    Raises:
        TileError: `missing-coastal` for TM and ETM+, `bad-parameter` for Level 1 and OLI-less products, and
            where the MTL is another product's than the files are by their names.
    """
    told, named = _product(mtl.product if mtl else None), _product(name)
    if told and named and told != named:
        raise TileError(
            "bad-parameter", f"MTL is of {told}, the bands of {named}; expected the files of one product"
        )
    level = (mtl.level if mtl else None) or ""
    if level.startswith("L1") or (not level and is_level_1(name)):
        came = (
            f"MTL says that this is {level[:40]}" if level else f"the files are named {(name or '')[:200]!r}"
        )
        raise TileError(
            "bad-parameter",
            f"{came}. Level-1 numbers are radiance at the top of the atmosphere on a scale of their own; "
            "expected a Level-2 product (L2SP, L2SR), surface reflectance, whose files are SR_B1 to SR_B7",
        )
    sensor = (mtl.sensor if mtl else None) or ""
    older = _NOT_OLI.match(name or "")
    if sensor in ("TM", "ETM", "MSS") or (not sensor and older):
        came = f"MTL says {mtl.spacecraft}, {sensor}" if mtl and sensor else f"the files are named {name!r}"
        raise TileError(
            "missing-coastal",
            f"{came[:200]}. TM and ETM+ (Landsat 4 to 7) have no coastal band, and their order differs: "
            "their SR_B1 is blue; expected OLI (Landsat 8 and 9), which the model was trained on",
        )
    if sensor and not sensor.startswith("OLI"):
        raise TileError(
            "bad-parameter", f"MTL says that the sensor is {sensor[:40]!r}; expected OLI or OLI_TIRS"
        )


def _product(text: str | None) -> str | None:
    found = _PRODUCT.match(text or "")
    return found[0].upper() if found else None


def _from_odl(text: str) -> dict[str, str]:
    """Lines `NAME = VALUE`, the value in quotes or not."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        value = value.strip()
        if equals and (name := name.strip()) in _WANTED:
            found.setdefault(name, value[1:-1] if value[:1] == value[-1:] == '"' else value)
    return found


def _from_json(text: str) -> dict[str, str]:
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TileError(
            "bad-parameter", f"MTL begins as JSON but cannot be read: {error}; {_EXPECTED}"
        ) from error
    found: dict[str, str] = {}

    def collect(node: Any, depth: int) -> None:
        if isinstance(node, dict) and depth < _MAX_DEPTH:
            for name, value in node.items():
                if name in _WANTED and isinstance(value, str):
                    found.setdefault(name, value)
                collect(value, depth + 1)

    collect(tree, 0)
    return found


def _from_xml(text: str) -> dict[str, str]:
    """Only element texts are read; a document that declares entities is refused: real ones have none."""
    found: dict[str, str] = {}
    path: list[str] = []
    complete: set[str] = set()

    def start(name: str, _attributes: dict[str, str]) -> None:
        path.append(name)
        if len(path) > _MAX_DEPTH:
            raise TileError("bad-parameter", f"MTL nests deeper than {_MAX_DEPTH} elements; {_EXPECTED}")

    def end(_name: str) -> None:
        complete.add(path.pop())

    def characters(data: str) -> None:
        if path and path[-1] in _WANTED and path[-1] not in complete and len(found.get(path[-1], "")) < 200:
            found[path[-1]] = found.get(path[-1], "") + data

    def refuse(*_: Any) -> None:
        raise TileError("bad-parameter", f"MTL declares XML entities; {_EXPECTED}")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = characters, refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise TileError(
            "bad-parameter", f"MTL begins as XML but cannot be read: {error}; {_EXPECTED}"
        ) from error
    return found
