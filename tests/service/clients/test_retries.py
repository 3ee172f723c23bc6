"""The client against servers that misbehave: what it asks again, how often, and what it says in the end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import stamina

from service.client import AsyncClient, Client
from service.clients.errors import (
    ClientError,
    OverloadedError,
    ProblemError,
    TransportError,
)


@contextmanager
def scripted(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[float]]]:
    """A server that gives answers one after another, the last again and again; and when it was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(time.monotonic())
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def refusal(status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = {
        "type": "urn:landmoe:problem:queue-full",
        "title": "",
        "status": status,
        "detail": "full",
        "request_id": "r",
    }
    return status, headers, json.dumps(body).encode()


GOOD = (200, {}, b'{"name": "x"}')


def test_retry_after_is_honoured() -> None:
    with scripted(refusal(429, **{"Retry-After": "1"}), GOOD) as (url, asked), Client(url) as client:
        assert client.model() == {"name": "x"}
    assert len(asked) == 2
    assert 1 <= asked[1] - asked[0] < 10


@pytest.mark.parametrize("status", [502, 503, 504])
def test_other_troubles_that_pass(status: int) -> None:
    with (
        scripted(refusal(status), (status, {}, b"<html>gateway</html>"), GOOD) as (url, asked),
        Client(url) as client,
    ):
        assert client.model() == {"name": "x"}
    assert len(asked) == 3


def test_it_gives_up_in_the_end_and_says_why() -> None:
    with (
        scripted(refusal(429, **{"Retry-After": "1"})) as (url, asked),
        Client(url, max_wait_s=5) as client,
        pytest.raises(OverloadedError, match="full") as caught,
    ):
        client.model()
    assert caught.value.retry_after_s == 1
    assert 2 <= len(asked) <= 6


def test_it_does_not_try_again_where_that_is_not_wanted() -> None:
    with (
        scripted(refusal(429)) as (url, asked),
        Client(url, max_wait_s=0) as client,
        pytest.raises(OverloadedError),
    ):
        client.model()
    assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    with scripted(refusal(status)) as (url, asked), Client(url) as client, pytest.raises(ProblemError):
        client.model()
    assert len(asked) == 1


def test_an_answer_of_something_else_is_told() -> None:
    with (
        scripted((404, {}, b"<h1>It works</h1>")) as (url, _),
        Client(url) as client,
        pytest.raises(ClientError, match="It works"),
    ):
        client.model()


def test_nobody_is_there() -> None:
    with (
        Client("http://127.0.0.1:9", max_wait_s=0) as client,
        pytest.raises(TransportError, match=r"127\.0\.0\.1:9"),
    ):
        client.model()


def test_an_address_that_never_answered_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.clients.connection._FIRST_CONTACT_S", 2)
    waits: list[float] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    try:
        with Client("http://127.0.0.1:9") as client, pytest.raises(TransportError):
            client.model()
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)
    assert 1 <= len(waits) < 10


def test_standard_output_is_the_caller_s() -> None:
    """In a process of its own: nobody has configured structlog there."""
    code = (
        "from service.client import Client, TransportError\n"
        "with Client('http://127.0.0.1:9', max_wait_s=0.3) as client:\n"
        "    try: client.model()\n"
        "    except TransportError: print('{}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"


def test_retries_are_spread() -> None:
    """Clients that were refused at the same moment do not return at the same one."""
    from service.clients.retries import wait_s

    waits = {round(float(wait_s(OverloadedError({"status": 429}, 8.0))), 3) for _ in range(50)}
    assert len(waits) > 40
    assert min(waits) >= 8
    assert max(waits) <= 10


def test_stamina_is_not_in_testing_mode() -> None:
    assert not stamina.is_testing()


def test_cancelling_stops_asking() -> None:
    async def cancelled() -> int:
        transport = httpx.MockTransport(lambda _: httpx.Response(429, headers={"Retry-After": "30"}))
        async with AsyncClient("http://x", transport=transport) as client:
            task = asyncio.create_task(client.model())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return 1

    assert asyncio.run(cancelled()) == 1
