"""A host of files for tests: good ones, and all that can go wrong with one."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # a delivery's files are asked for at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go before they have everything; some are to."""


class FileHost:
    """Listens on a port of its own. `files` are served by path; other paths say what becomes of them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []  # paths and headers of requests
        self.released = threading.Event()  # what is slow goes on then
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                host.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as its base class
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.allowed = f"http://127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        return f"{self.allowed}/{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        name, query = unquote(parts.path[1:]), parse_qs(parts.query)
        if name in self.files:
            self._send(request, 200, self.files[name], {"Set-Cookie": "id=1"})
        elif name == "redirect":
            self._send(request, 302, b"", {"Location": query["to"][0]})
        elif name == "gzip":
            self._send(request, 200, gzip.compress(b"II*\0" * 100), {"Content-Encoding": "gzip"})
        elif name == "chunked":
            self._chunked(request, int(query["bytes"][0]))
        elif name == "cut":
            self._send(request, 200, b"II*\0", {"Content-Length": "1000"})
            request.close_connection = True
        elif name == "slow":
            self.released.wait(60)
            self._send(request, 200, b"II*\0", {})
        elif name == "stalls":
            self._send(request, 200, bytes(300_000), {"Content-Length": "400000"})
            self.released.wait(60)
        elif name == "no-http":
            request.wfile.write(b"nothing that is HTTP\r\n\r\n")
            request.close_connection = True
        else:
            self._send(request, 404, b"", {})

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def start(self) -> None:
        self._thread.start()

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def _chunked(self, request: BaseHTTPRequestHandler, size: int) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for _ in range(0, size, 1000):
            request.wfile.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")


@contextmanager
def file_host() -> Iterator[FileHost]:
    """Listens within the `with` block."""
    host = FileHost()
    host.start()
    try:
        yield host
    finally:
        host.close()
