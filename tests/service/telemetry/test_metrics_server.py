"""The port of metrics, asked by who does not wait for the answer."""

from __future__ import annotations

import socket
import struct

import httpx
import pytest

from tests.service.server_process import ServerProcess

_RESET = struct.pack("ii", 1, 0)  # at its end a connection is reset, as that of a scrape that took too long


@pytest.mark.server
def test_a_connection_that_is_reset_leaves_no_trace_in_the_log() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ServerProcess(LANDMOE_METRICS_PORT=str(port)) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert "landmoe_ready 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert server.stop() == 0
    assert [line for line in server.lines if "level" not in line] == []
