"""The container's health check, against a server that answers as told."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from service import healthcheck


class _Answers(http.server.BaseHTTPRequestHandler):
    status = HTTPStatus.OK

    def do_GET(self) -> None:
        assert self.path == "/readyz"
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(b'{"detail": "draining"}')

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Tests are quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _run(port: int | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.healthcheck"],
        env={"LANDMOE_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ready(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Answers, "status", HTTPStatus.OK)
    assert healthcheck.unready("127.0.0.1", port) is None
    assert _run(port).returncode == 0


def test_draining(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Answers, "status", HTTPStatus.SERVICE_UNAVAILABLE)
    reason = healthcheck.unready("127.0.0.1", port)
    assert reason is not None
    assert "503" in reason
    assert "draining" in reason
    done = _run(port)
    assert done.returncode == 1
    assert "503" in done.stderr


def test_an_empty_port_is_the_usual_one_as_for_the_service() -> None:
    done = _run("")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "127.0.0.1:8000" in done.stderr


def test_nothing_listens() -> None:
    port = _free_port()
    done = _run(port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reason = healthcheck.unready("127.0.0.1", silent.getsockname()[1])
    assert reason is not None
    assert "timed out" in reason
