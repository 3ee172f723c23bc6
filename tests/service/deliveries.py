"""Landsat deliveries made by code: a file for each band, QA_PIXEL, and MTL in its three forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.bands import BANDS
from tests.rasters import Pixels, dn_pixels, geotiff

PRODUCT = "LC08_L2SP_192027_20200802_20200914_02_T1"
CLOUD, CIRRUS, FILL, CLEAR = 1 << 3, 1 << 2, 1 << 0, 1 << 6
FIELDS = {
    "LANDSAT_PRODUCT_ID": PRODUCT,
    "SPACECRAFT_ID": "LANDSAT_8",
    "SENSOR_ID": "OLI_TIRS",
    "DATE_ACQUIRED": "2020-08-02",
    "SCENE_CENTER_TIME": "09:58:12.3456780Z",
}
ACQUIRED = "2020-08-02T09:58:12.345678Z"


def mtl(kind: str = "txt", **changed: str | None) -> bytes:
    """The file's content; a field that is None is left out."""
    fields = {name: text for name, text in (FIELDS | changed).items() if text is not None}
    if kind == "json":
        return json.dumps({"LANDSAT_METADATA_FILE": {"IMAGE_ATTRIBUTES": fields}}).encode()
    if kind == "xml":
        inner = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<LANDSAT_METADATA_FILE><IMAGE_ATTRIBUTES>'
            f"{inner}</IMAGE_ATTRIBUTES></LANDSAT_METADATA_FILE>"
        ).encode()
    lines = [f'    {name} = "{text}"' for name, text in fields.items()]
    return "\n".join(["GROUP = LANDSAT_METADATA_FILE", "  GROUP = IMAGE_ATTRIBUTES", *lines, "END"]).encode()


def parts(
    pixels: Pixels | None = None,
    *,
    flags: Pixels | None = None,
    metadata: bytes | None = None,
    product: str = PRODUCT,
    **creation: Any,
) -> dict[str, tuple[str, bytes]]:
    """The parts of a form, by their names: file name and content."""
    pixels = dn_pixels() if pixels is None else pixels
    creation = {"nodata": 0} | creation
    files = {
        name: (f"{product}_{name}.TIF", geotiff(band[None], **creation))
        for name, band in zip(BANDS, pixels, strict=True)
    }
    if flags is not None:
        files["QA_PIXEL"] = (f"{product}_QA_PIXEL.TIF", geotiff(flags[None].astype(np.uint16)))
    if metadata is not None:
        files["MTL"] = (f"{product}_MTL.txt", metadata)
    return files


def write(folder: Path, files: Mapping[str, tuple[str, bytes]]) -> Path:
    """The delivery as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.values():
        (folder / name).write_bytes(content)
    return folder
