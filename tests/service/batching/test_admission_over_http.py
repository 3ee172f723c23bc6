"""Who is let in over HTTP, how long they wait, and what becomes of those who go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.batcher import Embedding
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine
from tests.service.running_batcher import entered, tile

Post = Callable[..., Awaitable[httpx.Response]]

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}


def serve(engine: FakeEngine, body: Callable[[Any, Post], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        app = create_app(Settings(**settings), engine)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):

            async def post(seed: int, **headers: str) -> httpx.Response:
                content = geotiff(dn_pixels(seed=seed))
                return await client.post("/embed", content=content, headers=TIFF | headers)

            try:
                async with asyncio.timeout(20):
                    await body(app, post)
            finally:
                engine.gate.set()

    asyncio.run(main())


def test_a_full_service_refuses_a_large_body_before_it_is_read(engine: FakeEngine) -> None:
    async def body(app: Any, post: Post) -> None:
        engine.gate.clear()
        tasks = [asyncio.create_task(post(0))]
        await entered(engine)
        tasks.append(asyncio.create_task(post(1)))
        while app.state.batcher.depth < 1:  # noqa: ASYNC110  # the batcher has no event for tests
            await asyncio.sleep(0.001)
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was read")

        async def send(message: Any) -> None:
            answer.append(message)

        headers = [(b"content-type", b"image/tiff"), (b"content-length", b"1000000")]
        scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers, "query_string": b""}
        await app(scope, receive, send)
        assert answer[0]["status"] == 429
        assert int(dict(answer[0]["headers"])[b"retry-after"]) >= 1
        assert (await post(2)).status_code == 429  # small: read, but not decoded
        engine.gate.set()
        assert [(await task).status_code for task in tasks] == [200, 200]

    serve(engine, body, queue_size=1)


def test_what_a_client_allows_is_kept_and_the_tile_is_never_computed(engine: FakeEngine) -> None:
    async def body(app: Any, post: Post) -> None:
        engine.gate.clear()
        first = asyncio.create_task(post(0))
        await entered(engine)
        late = await post(1, **{"X-Timeout-Ms": "60"})
        assert late.status_code == 504
        assert "within 0.06 s" in late.json()["detail"]
        engine.gate.set()
        assert (await first).status_code == 200
        assert (await post(2, **{"X-Timeout-Ms": "9000"})).status_code == 200
        assert engine.batches == [1, 1]

    serve(engine, body)


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "", "60001", "٣", "9" * 400])
def test_a_timeout_that_is_none_is_refused(make_client: MakeClient, value: str) -> None:
    client: TestClient = make_client(max_request_timeout_s=60)
    headers = {**TIFF, "X-Timeout-Ms": value.encode()}
    response = client.post("/embed", content=geotiff(), headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 422
    assert "1 to 60000" in response.json()["detail"]


def test_more_tiles_have_more_time(engine: FakeEngine) -> None:
    """A tile adds to the time; without tiles it would have passed."""

    async def body(app: Any, post: Post) -> None:
        engine.gate.clear()
        task = asyncio.create_task(post(0))
        await entered(engine)
        await asyncio.sleep(0.2)
        engine.gate.set()
        assert (await task).status_code == 200

    serve(engine, body, request_timeout_s=0.01, request_timeout_per_tile_ms=5000)


def test_a_client_that_goes_while_it_waits_takes_its_tile_with_it(engine: FakeEngine) -> None:
    async def body(app: Any, post: Post) -> None:
        engine.gate.clear()
        first = asyncio.create_task(post(0))
        await entered(engine)
        content = geotiff(dn_pixels(seed=1))
        messages = [{"type": "http.request", "body": content}, {"type": "http.disconnect"}]
        sent: list[Any] = []
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if len(messages) == 1:
                await gone.wait()
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/embed",
            "headers": [(k.lower().encode(), v.encode()) for k, v in TIFF.items()],
            "query_string": b"",
        }
        waiting = asyncio.create_task(app(scope, receive, send))
        while app.state.batcher.depth < 1:  # noqa: ASYNC110  # the batcher has no event for tests
            await asyncio.sleep(0.001)
        gone.set()
        await waiting
        assert sent == []
        engine.gate.set()
        assert (await first).status_code == 200
        assert isinstance((await app.state.batcher.submit([tile(0)], "mean"))[0], Embedding)
        assert engine.batches == [1, 1]

    serve(engine, body)
