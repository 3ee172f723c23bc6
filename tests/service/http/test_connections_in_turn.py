"""What comes on a connection behind a request, and requests that offer another protocol, against a server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.rasters import dn_pixels, geotiff
from tests.service.load_accounts import FAULTY
from tests.service.server_process import ServerProcess

pytestmark = pytest.mark.server
TIMEOUT_S = 1
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "held"


@pytest.fixture(scope="module")
def impatient(held: Path) -> Iterator[ServerProcess]:
    """It does not wait long for headers, and computes nothing while there is a file `held`."""
    options = {"LANDMOE_HEADER_TIMEOUT_S": str(TIMEOUT_S), "HELD_WHILE": str(held)}
    with ServerProcess(command=FAULTY, **options) as server:
        yield server


def connected(server: ServerProcess) -> socket.socket:
    found = urlsplit(server.url)
    return socket.create_connection((found.hostname, found.port), timeout=30)


def told(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while data := connection.recv(65_536):
        received += data
    return received


def statuses(answer: bytes) -> list[bytes]:
    return [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


def post(path: bytes, body: bytes, headers: bytes = b"") -> tuple[bytes, bytes]:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\n" % path
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body), body


@pytest.mark.parametrize("together", [True, False])
def test_the_body_of_a_request_that_offers_another_protocol(server: ServerProcess, together: bool) -> None:
    head, body = post(b"/embed", geotiff(), OFFER)
    with connected(server) as connection:
        for piece in [head + body] if together else [head[:90], head[90:], body[:5000], body[5000:]]:
            connection.sendall(piece)
        connection.sendall(LAST)
        answer = told(connection)
    assert statuses(answer) == [b"200", b"200"]
    assert b'"embedding":[' in answer


def test_a_body_behind_an_offer_is_not_the_next_request(server: ServerProcess) -> None:
    head, _ = post(b"/embed", LIVEZ, OFFER)
    with connected(server) as connection:
        connection.sendall(head)
        connection.sendall(LIVEZ)
        connection.sendall(LAST)
        answer = told(connection)
    assert statuses(answer) == [b"415", b"200"]


def test_many_offers_at_once(server: ServerProcess) -> None:
    asked = b"GET /livez HTTP/1.1\r\n" + OFFER + b"Host: x\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(asked * 1000 + LAST)
        answer = told(connection)
    assert statuses(answer) == [b"200"] * 1001


@pytest.mark.parametrize("address", [b"CONNECT a:80", b"GET http://["])
@pytest.mark.parametrize("offer", [b"", OFFER], ids=["", "offer"])
def test_addresses_that_are_none(server: ServerProcess, address: bytes, offer: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(address + b" HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
        answer = told(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "behind",
    [b"G", b"\x00no HTTP\r\n\r\n", b"GET /livez HTTP/1.1\r\n" + b"X-A: 0123456789\r\n" * 5_000],
    ids=["incomplete", "no HTTP", "too much"],
)
def test_what_comes_behind_a_request_does_not_take_its_answer(
    impatient: ServerProcess, held: Path, behind: bytes
) -> None:
    scene = geotiff(dn_pixels(240, 240))
    held.touch()
    with connected(impatient) as connection:
        for piece in post(b"/embed?fit=grid&format=npy", scene, b"Cache-Control: no-cache\r\n"):
            connection.sendall(piece)
        connection.sendall(behind)
        time.sleep(2 * TIMEOUT_S)
        held.unlink()
        answer = told(connection)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest.startswith(b"\x93NUMPY")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    assert rest[length:] == b"" or rest[length:].startswith(b"HTTP/1.1 4")
