"""/metrics on a port of its own, for networks in which Prometheus comes in by another door than users."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer

from service.telemetry import metrics


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may take to ask

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


def start(host: str, port: int) -> int:
    """Serves metrics, of all workers where there are several, from a thread that ends with the process.

    Returns:
        The port.

    Raises:
        OSError: the address cannot be listened on.
    """
    kind = _Server6 if ":" in host else ThreadingWSGIServer
    server = make_server(host, port, _answer, kind, _Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


def _answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environment["PATH_INFO"] != "/metrics" or environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"only GET /metrics is served on this port\n"]
    start_response("200 OK", [("Content-Type", metrics.MEDIA_TYPE), ("X-Content-Type-Options", "nosniff")])
    return [metrics.exposition()]
