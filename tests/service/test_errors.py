"""Every row of the error table, brought about by a request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from httpx import ASGITransport, AsyncClient, Response
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import PROBLEMS, TYPE_PREFIX
from service.json_text import dumps
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine

TIFF = {"Content-Type": "image/tiff"}


def send(client: TestClient, data: bytes, headers: dict[str, str] = TIFF, **params: str) -> Response:
    return client.post("/embed", content=data, headers=headers, params=params)


def form(client: TestClient, body: bytes, content_type: str = "multipart/form-data; boundary=x") -> Response:
    return client.post("/embed", content=body, headers={"Content-Type": content_type})


def _poisoned(make: MakeClient) -> Response:
    pixels = dn_pixels()
    pixels[0, 0, 0] = 12_345
    return send(make(engine=FakeEngine(poison=12_345)), geotiff(pixels))


def _late(make: MakeClient) -> Response:
    engine = FakeEngine()
    client = make(engine=engine, request_timeout_s=0.2)
    engine.gate.clear()
    response = send(client, geotiff())
    engine.gate.set()
    return response


def _full(make: MakeClient) -> Response:
    """One tile in the engine, one waiting, and no room for a third."""
    engine = FakeEngine()
    client = make(engine=engine, queue_size=1, max_batch_size=1)
    engine.entered.clear()
    engine.gate.clear()
    threads = [threading.Thread(target=send, args=(client, geotiff(dn_pixels(seed=n)))) for n in (1, 2)]
    threads[0].start()
    assert engine.entered.wait(10)
    threads[1].start()
    while client.get("/readyz").json()["queue_depth_tiles"] < 1:
        pass
    response = send(client, geotiff())
    engine.gate.set()
    for thread in threads:
        thread.join()
    return response


def _draining(make: MakeClient) -> Response:
    client = make()
    client.app.state.batcher._draining = True  # what SIGTERM sets, while the last answers go out
    return send(client, geotiff())


def _defect(make: MakeClient) -> Response:
    client = make()
    client.app.state.pipeline = None
    return send(client, geotiff())


def _slow(make: MakeClient) -> Any:
    """A body that stops coming; starlette's client would wait for all of it before sending."""

    async def body() -> AsyncIterator[bytes]:
        yield geotiff()[:100]
        await asyncio.sleep(20)

    async def post(app: Any) -> Response:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            return await client.post("/embed", content=body(), headers=TIFF)

    return asyncio.run(post(make(body_timeout_s=0.1).app))


six = geotiff(dn_pixels(count=6))
SITUATIONS: dict[str, Callable[[MakeClient], Response]] = {
    "malformed-body": lambda make: form(make(), b"not a form"),
    "unauthorized": lambda make: send(make(api_keys="k" * 16), geotiff(), TIFF | {"X-API-Key": "another"}),
    "not-found": lambda make: make().get("/nothing"),
    "method-not-allowed": lambda make: make().get("/embed"),
    "not-acceptable": lambda make: send(make(), geotiff(), TIFF | {"Accept": "image/png"}),
    "slow-body": _slow,
    "too-large": lambda make: send(make(max_upload_mb=0.01), geotiff()),
    "unsupported-media-type": lambda make: send(make(), geotiff(), {"Content-Type": "application/json"}),
    "not-a-tiff": lambda make: send(make(), b"\x89PNG\r\n\x1a\n"),
    "unreadable-tiff": lambda make: send(make(), geotiff()[:300]),
    "wrong-band-count": lambda make: send(make(), geotiff(dn_pixels(count=3))),
    "ambiguous-bands": lambda make: send(
        make(), geotiff(descriptions=["B1", "B2", "B3", "B4", "B8A", "B11", "B12"])
    ),
    "missing-coastal": lambda make: send(
        make(),
        geotiff(dn_pixels(count=6), descriptions=["blue", "green", "red", "nir08", "swir16", "swir22"]),
    ),
    "unsupported-pixel-type": lambda make: send(make(), geotiff(dn_pixels().astype(np.complex64))),
    "unknown-units": lambda make: send(make(), geotiff(dn_pixels() // 10)),
    "wrong-size": lambda make: send(make(), geotiff(dn_pixels(20, 20))),
    "too-cloudy": lambda make: make().post(
        "/embed",
        files=deliveries.parts(flags=np.full((41, 41), deliveries.CLOUD)),
        data={"max_cloud_fraction": "0.5"},
    ),
    "empty-tile": lambda make: send(make(), geotiff(np.zeros((7, 41, 41), np.uint16))),
    "bad-parameter": lambda make: send(make(), geotiff(), pooling="max"),
    "unknown-parameter": lambda make: send(make(), geotiff(), poling="mean"),
    "missing-tile": lambda make: make().post("/embed", files={"tile": b""}),
    "unknown-probe": lambda make: make().post("/classify", content=geotiff(), headers=TIFF),
    "queue-full": _full,
    "internal-error": _defect,
    "not-ready": _draining,
    "engine-failed": _poisoned,
    "deadline-passed": _late,
    "no-room": lambda make: send(make(spool_above_mb=0.001, max_spool_mb=0.001), geotiff()),
}


def test_every_row_has_a_situation() -> None:
    assert SITUATIONS.keys() == PROBLEMS.keys()


@pytest.mark.parametrize("code", SITUATIONS)
def test_a_situation_is_answered_with_its_row(code: str, make_client: MakeClient) -> None:
    response = SITUATIONS[code](make_client)
    row = PROBLEMS[code]
    body = response.json()
    assert (response.status_code, body["type"]) == (row.status, TYPE_PREFIX + code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["title"] == row.title
    assert body["status"] == row.status
    assert len(body["detail"]) > 10
    assert body["request_id"] == response.headers["x-request-id"]
    if row.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"pooling": "max"}, ["pooling", "'max'", "'mean'", "'cls'"]),
        ({"lat": "north", "lon": "3"}, ["lat", "'north'", "number"]),
        ({"lat": "95", "lon": "3"}, ["lat", "95", "-90"]),
        ({"lat": "nan", "lon": "3"}, ["lat", "'nan'", "finite"]),
        ({"lat": "5"}, ["lat", "lon", "both"]),
        ({"datetime": "yesterday"}, ["datetime", "'yesterday'", "RFC 3339"]),
        ({"normalize": "perhaps"}, ["normalize", "'perhaps'"]),
        ({"bands": "1,2"}, ["bands", "seven"]),
        ({"units": "kelvin"}, ["units", "'kelvin'", "'reflectance'"]),
        ({"units": "dn", "scale": "2"}, ["units", "scale"]),
        ({"stride": "20"}, ["stride", "20", "fit=grid"]),
        ({"fit": "grid", "stride": "0"}, ["stride", "'0'"]),
        ({"fit": "stretch"}, ["fit", "'stretch'", "'crop'"]),
        ({"format": "shapefile"}, ["format", "'shapefile'", "'npy'", "'parquet'"]),
        ({"id": "x" * 501}, ["id", "500"]),
        ({"poling": "mean"}, ["'poling'", "pooling", "datetime"]),
    ],
)
def test_a_bad_parameter_is_named_with_what_was_expected(
    client: TestClient, params: dict[str, str], words: list[str]
) -> None:
    response = send(client, geotiff(), **params)
    assert response.status_code == 422
    for word in words:
        assert word in response.json()["detail"], response.json()["detail"]


@pytest.mark.parametrize("query", ["pooling=mean&pooling=cls", "lat=1&lat=2&lon=1"])
def test_contradicting_values_are_refused(client: TestClient, query: str) -> None:
    response = client.post(f"/embed?{query}", content=geotiff(), headers=TIFF)
    assert response.json()["type"].endswith("bad-parameter")


def test_query_and_form_do_not_mix_silently(client: TestClient) -> None:
    tile = {"tile": geotiff()}
    both = client.post("/embed?pooling=cls", files=tile, data={"pooling": "mean"})
    assert both.status_code == 422
    assert "query" in both.json()["detail"]
    apart = client.post("/embed?pooling=cls&lat=", files=tile, data={"pooling": "", "lat": "1", "lon": "2"})
    assert apart.status_code == 200
    assert (apart.json()["pooling"], apart.json()["data"][0]["lat"]) == ("cls", 1)


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


@pytest.mark.parametrize("metadata", ["[%s]", '[{"id": %s}]', '[{"datetime": %s, "lat": %s}]', "%s"])
@pytest.mark.parametrize("nested", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "0" + "}" * 1000])
def test_json_may_nest_deeper_than_python_follows(client: TestClient, metadata: str, nested: str) -> None:
    data = {"metadata": metadata.replace("%s", nested)}
    response = client.post("/embed", files={"tile": geotiff()}, data=data)
    assert response.status_code == 422, response.text
    assert len(response.json()["detail"]) < 1000


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
