"""/metrics on a port of its own, for networks in which Prometheus comes in by another door than users."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client.exposition import ThreadingWSGIServer

from service.telemetry import metrics

log = structlog.get_logger()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may take to ask

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server(ThreadingWSGIServer):
    def handle_error(self, *_: Any) -> None:
        """A line of the log, as all others are; the library would write a trace of its own."""
        error = sys.exception()
        if isinstance(error, OSError):  # who asked has gone, or is slow
            log.debug("metrics were not taken", reason=str(error))
        else:
            log.error("metrics failed", exc_info=error)


class _Server6(_Server):
    address_family = socket.AF_INET6


def start(host: str, port: int) -> int:
    """Serves metrics, of all workers where there are several, from a thread that ends with the process.

    Returns:
        The port.

    Raises:
        OSError: the address cannot be listened on.
    """
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, _answer, kind, _Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


def _answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environment["PATH_INFO"] != "/metrics" or environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"only GET /metrics is served on this port\n"]
    start_response("200 OK", [("Content-Type", metrics.MEDIA_TYPE), ("X-Content-Type-Options", "nosniff")])
    return [metrics.exposition()]
