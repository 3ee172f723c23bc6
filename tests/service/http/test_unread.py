"""Clients that ask for much and do not read it, against a real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.rasters import dn_pixels, geotiff
from tests.service.server_process import ServerProcess

pytestmark = pytest.mark.server
PERIOD_S = 4
SCENE = geotiff(dn_pixels(400, 400))


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(LANDMOE_HEADER_TIMEOUT_S=str(PERIOD_S / 4)) as server:
        yield server


def asking(server: ServerProcess, options: bytes = b"") -> socket.socket:
    """A connection on which 10 MB are asked for, more than the system's buffers take."""
    found = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.settimeout(30)
    connection.connect((found.hostname, found.port))
    head = b"POST /embed?fit=grid&stride=30&pooling=tokens&format=npy%s HTTP/1.1\r\nHost: x\r\n" % options
    head += b"Content-Type: image/tiff\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(SCENE)
    connection.sendall(head + SCENE)
    return connection


def test_an_answer_that_is_not_read_is_given_up(server: ServerProcess) -> None:
    with asking(server):
        line = server.wait_for("request")
        while line["path"] != "/embed":
            line = server.wait_for("request")
        assert line["outcome"] == "disconnected"


def test_an_answer_may_be_read_slowly(server: ServerProcess) -> None:
    with asking(server, b"&normalize=true") as connection:
        start, received = time.monotonic(), bytearray()
        while piece := connection.recv(100_000, socket.MSG_WAITALL):
            received += piece
            time.sleep(0.1)
    assert time.monotonic() - start > 2 * PERIOD_S
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head
