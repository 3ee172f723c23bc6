"""A scene, and requests for its windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from httpx import Response
from numpy.typing import NDArray
from starlette.testclient import TestClient

from tests.rasters import dn_pixels, geotiff

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}
SCENE = dn_pixels(170, 130)


# Too large to be read as a whole before the first window; what it is judged by does not reach the last rows.
LONG = dn_pixels(3000, 400)


def damaged(pixels: NDArray[np.uint16], row: int) -> bytes:
    """A scene in strips of 20 rows, of which those from a row on are zeros instead of deflated."""
    data = geotiff(pixels, compress="deflate", blockysize=20)
    with rasterio.MemoryFile(data) as memory, memory.open() as file:
        start = int(file.get_tag_item(f"BLOCK_OFFSET_0_{row // 20}", "TIFF", bidx=1))
    return data[:start] + bytes(len(data) - start)


def grid(client: TestClient, data: bytes, **params: Any) -> Response:
    return client.post("/embed", content=data, params={"fit": "grid"} | params, headers=TIFF)
