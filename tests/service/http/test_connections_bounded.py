"""What a connection may do before and while it asks, against a real server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service.server_process import ServerProcess

pytestmark = pytest.mark.server
TIMEOUT_S = 1


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ServerProcess(
        LANDMOE_HEADER_TIMEOUT_S=str(TIMEOUT_S),
        LANDMOE_BODY_TIMEOUT_S=str(TIMEOUT_S),
        LANDMOE_METRICS_PORT=str(port),
        LANDMOE_API_KEYS="k" * 20,
    ) as server:
        server.metrics_url = f"http://127.0.0.1:{port}/metrics"  # type: ignore[attr-defined]
        yield server


def connected(server: ServerProcess) -> socket.socket:
    found = urlsplit(server.url)
    return socket.create_connection((found.hostname, found.port), timeout=10)


def told(connection: socket.socket) -> tuple[bytes, float]:
    """What comes until the server closes, and how long that took."""
    start, received = time.monotonic(), b""
    while data := connection.recv(65_536):
        received += data
    return received, time.monotonic() - start


def test_a_connection_that_says_nothing_is_closed(server: ServerProcess) -> None:
    with connected(server) as connection:
        answer, seconds = told(connection)
    assert answer == b""
    assert seconds < TIMEOUT_S + 5


@pytest.mark.parametrize("kept", [False, True])
def test_headers_that_do_not_end(server: ServerProcess, kept: bool) -> None:
    with connected(server) as connection:
        if kept:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            first = b""
            while not first.endswith(b'{"status":"ok"}'):
                piece = connection.recv(65_536)
                assert piece
                first += piece
            assert first.startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ")
        answer, seconds = told(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    assert seconds < TIMEOUT_S + 5


def test_headers_that_are_too_many(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: 0123456789\r\n" * 6_000)
        answer, _ = told(connection)
    assert answer.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("before", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez?" + b"a" * 70_000 + b" HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * 70_000 + b"\r\n",
    ],
)
def test_headers_that_are_too_many_in_one_piece(server: ServerProcess, head: bytes, before: bytes) -> None:
    """Which the server most often reads at once: its buffer has 256 kB."""
    with connected(server) as connection:
        connection.sendall(before + head + b"Host: x\r\n\r\n")
        answer, _ = told(connection)
    assert answer.count(b"HTTP/1.1 200") == bool(before)
    assert before or answer.startswith(b"HTTP/1.1 431")


def test_what_is_no_http(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        answer, _ = told(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("drip", [False, True])
def test_a_body_that_does_not_come(server: ServerProcess, drip: bool) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\nContent-Length: 9000\r\n"
            b"X-API-Key: " + b"k" * 20 + b"\r\n\r\nII*\0"
        )
        connection.settimeout(0.2)
        start = time.monotonic()
        answer = b""
        while not answer and time.monotonic() - start < 10:
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                if drip:
                    with contextlib.suppress(ConnectionError):  # it has closed just now
                        connection.sendall(b"\0")
        connection.settimeout(10)
        with contextlib.suppress(ConnectionResetError):  # it closes with bytes unread
            answer += told(connection)[0]
    assert answer.startswith(b"HTTP/1.1 408")
    assert drip or b"slow-body" in answer  # a byte on its way resets the connection, and the rest is lost


def test_a_refused_key_does_not_read_the_body(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\nContent-Length: 60000000\r\n\r\n"
        )
        answer, seconds = told(connection)
    assert answer.startswith(b"HTTP/1.1 401")
    assert seconds < TIMEOUT_S


CHUNKED = b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("flood", [b"X-A: 0123456789\r\n", b"x"])
def test_what_follows_a_body_is_bounded(server: ServerProcess, flood: bytes) -> None:
    sent = 0
    with connected(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(CHUNKED + b"0\r\n" + (b"X-B: " if flood == b"x" else b""))
        while sent < 40_000_000:
            connection.sendall(flood * (100_000 // len(flood)))
            sent += 100_000
    assert sent < 20_000_000  # much of it in the buffers of both ends


def test_a_few_trailers_are_no_headers(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n0\r\nX-A: x\r\nX-B: y\r\n\r\n")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer, _ = told(connection)
    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("begin", [CHUNKED + b"0\r\nX-A: ", CHUNKED + b"fffff\r\n"])
def test_an_answered_request_must_come_to_its_end(server: ServerProcess, begin: bytes) -> None:
    """However slowly its rest comes in."""
    with connected(server) as connection:
        connection.sendall(begin)
        connection.settimeout(0.2)
        start, answer = time.monotonic(), b""
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 10:
                try:
                    if not (piece := connection.recv(65_536)):
                        break
                    answer += piece
                except TimeoutError:
                    connection.sendall(b"a")
        assert time.monotonic() - start < 10
    assert answer.startswith(b"HTTP/1.1 200")


def test_metrics_on_their_own_port(server: ServerProcess) -> None:
    url: str = server.metrics_url  # type: ignore[attr-defined]
    text = httpx.get(url).text
    assert "landmoe_requests_total" in text
    assert "landmoe_ready 1.0" in text
    assert httpx.get(url.replace("/metrics", "/")).status_code == 404
    assert httpx.get(f"{server.url}/metrics").status_code in (401, 404)


def test_the_service_goes_on(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert not [line for line in server.lines if line["event"] == "defect"]
