"""Requests whose parts are files, or links to them."""

from __future__ import annotations

from typing import Any

from httpx import Response
from starlette.testclient import TestClient


def post(client: TestClient, parts: list[tuple[str, str | bytes]], **params: Any) -> Response:
    """Texts are links, bytes are files."""
    files = [
        (name, (None, content) if isinstance(content, str) else ("up.tif", content, "image/tiff"))
        for name, content in parts
    ]
    return client.post("/embed", files=files, params=params)
