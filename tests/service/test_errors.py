"""Every row of the error table, brought about by a request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from httpx import ASGITransport, AsyncClient, Response
from structlog.testing import capture_logs

from service.errors import PROBLEMS, TYPE_PREFIX
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.conftest import MakeClient
from tests.service.embed_requests import TIFF, form, send
from tests.service.fake_engine import FakeEngine


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


def _linked(make: MakeClient, **settings: Any) -> Response:
    """Nobody listens on port 1."""
    return make(**settings).post("/embed", files={"tile": (None, "http://127.0.0.1:1/a.tif")})


SITUATIONS: dict[str, Callable[[MakeClient], Response]] = {
    "malformed-body": lambda make: form(make(), b"not a form"),
    "unauthorized": lambda make: send(make(api_keys="k" * 16), geotiff(), TIFF | {"X-API-Key": "another"}),
    "fetch-not-allowed": _linked,
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
    "fetch-failed": lambda make: _linked(make, fetch_hosts="http://127.0.0.1:1"),
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
    with capture_logs() as lines:
        response = SITUATIONS[code](make_client)
    row = PROBLEMS[code]
    body = response.json()
    assert (response.status_code, body["type"]) == (row.status, TYPE_PREFIX + code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["title"] == row.title
    assert body["status"] == row.status
    assert len(body["detail"]) > 10
    assert body["request_id"] == response.headers["x-request-id"]
    [line] = [seen for seen in lines if seen.get("outcome") == code]
    assert line["log_level"] == ("warning" if row.status >= 500 else "info")
    if row.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
