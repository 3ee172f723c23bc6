"""Requests to /embed, with a tile or a form as it is."""

from __future__ import annotations

from httpx import Response
from starlette.testclient import TestClient

TIFF = {"Content-Type": "image/tiff"}


def send(client: TestClient, data: bytes, headers: dict[str, str] = TIFF, **params: str) -> Response:
    return client.post("/embed", content=data, headers=headers, params=params)


def form(client: TestClient, body: bytes, content_type: str = "multipart/form-data; boundary=x") -> Response:
    return client.post("/embed", content=body, headers={"Content-Type": content_type})
