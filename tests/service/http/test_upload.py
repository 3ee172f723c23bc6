"""Bodies and forms that are damaged, misnamed or too large."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import TYPE_PREFIX
from service.json_text import dumps
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.embed_requests import TIFF, form, send
from tests.service.fake_engine import FakeEngine


@pytest.mark.parametrize(
    ("name", "filename", "code"),
    [("image", "tile.tif", "unknown-parameter"), ("tile", None, "missing-tile")],
)
def test_a_wrongly_named_part_is_explained(
    client: TestClient, name: str, filename: str | None, code: str
) -> None:
    response = client.post("/embed", files=[(name, (filename, geotiff()))])
    assert response.json()["type"] == TYPE_PREFIX + code
    assert "tile" in response.json()["detail"]


@pytest.mark.parametrize(
    ("disposition", "media_type", "source"),
    [
        # .NET
        (b"name=tile; filename=\"=?utf-8?B?w6QudGlm?=\"; filename*=utf-8''%C3%A4.tif", b"", "ä.tif"),
        (b"name=tile; filename=b.tif; filename*=utf-8''b.tif", b"image/tiff", "b.tif"),
        (b"name=\"tile\"; filename*=UTF-8'en'a%2Fb%20c.tif", b"", "b c.tif"),
        (b"name=\"tile\"; filename*=iso-8859-1''%E4.tif", b"", "ä.tif"),
        (b'name="tile"; filename="; filename*=utf-8\'\'b.tif"', b"", "; filename*=utf-8''b.tif"),
        # Apache HttpClient and others, of bytes
        (b'name="tile"', b"application/octet-stream", None),
        (b'name="tile"; filename=""', b"image/tiff", None),
    ],
)
def test_files_as_clients_name_them(
    client: TestClient, disposition: bytes, media_type: bytes, source: str | None
) -> None:
    kind = b"\r\nContent-Type: " + media_type if media_type else b""
    head = b"--x\r\nContent-Disposition: form-data; " + disposition + kind + b"\r\n\r\n"
    field = b"Content-Disposition: form-data; name=id\r\nContent-Type: application/octet-stream\r\n\r\na"
    response = form(client, head + geotiff() + b"\r\n--x\r\n" + field + b"\r\n--x--\r\n")
    assert response.status_code == 200, response.text
    [item] = response.json()["data"]
    assert (item["source"], item["id"]) == (source, "a")


def test_a_large_part_without_a_name_is_explained(make_client: MakeClient) -> None:
    client = make_client(max_field_kb=1)
    response = client.post("/embed", files=[("tile", (None, geotiff()))])
    assert response.status_code == 413
    assert "'tile' has no filename" in response.json()["detail"]
    response = client.post("/embed", files=[("tile", ("a.tif", geotiff())), ("id", (None, b"a" * 5000))])
    assert response.status_code == 413
    assert "filename" not in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--x--\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="tile"; filename="a"\r\n\r\nII*', 400),
        (b"", 400),
        (b"--x--\r\n", 422),
        (b"\r\n" * 50, 400),
    ],
)
def test_damaged_forms(client: TestClient, body: bytes, status: int) -> None:
    response = form(client, body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_in_a_content_coding_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "image/tiff", "Content-Encoding": "gzip"}
    response = client.post("/embed", content=gzip.compress(geotiff()), headers=headers)
    assert response.status_code == 415
    assert "Content-Encoding is 'gzip'" in response.json()["detail"]
    assert response.headers["accept-encoding"] == "identity"
    headers["Content-Encoding"] = "identity"
    assert client.post("/embed", content=geotiff(), headers=headers).status_code == 200


@pytest.mark.parametrize("charset", ["idna", "unicode_escape", "utf-7", "zlib", "x" * 300])
def test_a_form_in_a_charset_that_is_none_is_refused(client: TestClient, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n\\ud800\xff\r\n--x--\r\n'
    response = form(client, body, f"multipart/form-data; charset={charset}; boundary=x")
    assert response.status_code == 415, response.text
    assert "charset" in response.json()["detail"]


def test_text_that_is_not_unicode_does_not_break_an_answer(client: TestClient) -> None:
    fields = [("tile", ("a.tif", geotiff())), ("id", (None, b"\xff\xed\xa0\x80"))]
    response = client.post("/embed", files=fields)
    assert response.status_code == 200
    assert dumps({"a": ["\ud800x"], "b": "ok"}) == b'{"a":["?x"],"b":"ok"}'


def test_form_without_boundary(client: TestClient) -> None:
    assert form(client, b"--x--", "multipart/form-data").status_code == 400


@pytest.mark.parametrize(
    ("settings", "files", "data"),
    [
        ({"max_tiles": 2}, 3, {}),
        ({"max_fields": 2}, 1, {"id": "1", "lat": "1", "lon": "1"}),
        ({"max_field_kb": 0.1}, 1, {"id": "x" * 200}),
        ({"max_field_kb": 0.1}, 1, {f"field{n}": "x" * 90 for n in range(5)}),
    ],
)
def test_parts_are_limited(
    make_client: MakeClient, settings: dict[str, Any], files: int, data: dict[str, str]
) -> None:
    response = make_client(**settings).post(
        "/embed", files=[("tile", ("a.tif", geotiff()))] * files, data=data
    )
    assert response.status_code == 413, response.text


def test_rasters_are_limited_before_their_pixels_are_read(make_client: MakeClient) -> None:
    client = make_client(max_pixels=1600, max_bands=8)
    assert send(client, geotiff()).status_code == 413
    assert send(client, geotiff(dn_pixels(40, 40, count=9))).status_code == 413
    assert send(client, geotiff(dn_pixels(40, 40))).status_code == 200


def test_an_announced_body_is_refused_unread_and_a_streamed_one_early() -> None:
    app = create_app(Settings(max_upload_mb=0.1), FakeEngine())
    sent = {"chunks": 0}

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            sent["chunks"] += 1
            yield b"II*\0" * 2500  # 10 kB

    async def refused_unread() -> int:
        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was read")

        answer: list[dict[str, Any]] = []

        async def keep(message: Any) -> None:
            answer.append(message)

        headers = [(b"content-type", b"image/tiff"), (b"content-length", b"100001")]
        scope = {
            "type": "http", "method": "POST", "path": "/embed", "raw_path": b"/embed", "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "",
        }  # fmt: skip
        await app(scope, receive, keep)
        assert orjson.loads(answer[1]["body"])["status"] == 413
        return int(answer[0]["status"])

    with TestClient(app) as client:
        response = client.post("/embed", content=chunks(), headers=TIFF)
        assert response.status_code == 413
        assert asyncio.run(refused_unread()) == 413


def test_a_file_name_cannot_break_the_answer(client: TestClient) -> None:
    name = 'a\r\nX-Evil: 1\\..\\"\x00é\u202egnp.tif'
    response = client.post("/embed", files={"tile": (name, geotiff())})
    assert response.status_code == 200
    assert "x-evil" not in response.headers
    source = response.json()["data"][0]["source"]
    assert not set(source) & set("\r\n\0\\/\u202e")
    wrong = client.post("/embed", files={"tile": (name, b"GIF89a")})
    assert wrong.status_code == 415
