"""A scene, and requests for its windows."""

from __future__ import annotations

from typing import Any

from httpx import Response
from starlette.testclient import TestClient

from tests.rasters import dn_pixels

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}
SCENE = dn_pixels(170, 130)


def grid(client: TestClient, data: bytes, **params: Any) -> Response:
    return client.post("/embed", content=data, params={"fit": "grid"} | params, headers=TIFF)
