"""Around every request: its id, its line in the log, its metrics, and the last resort for defects."""

from __future__ import annotations

import os
import re
import time
from functools import lru_cache

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import problem, problem_response
from service.telemetry import metrics, tracing

log = structlog.get_logger()

REQUEST_ID = "X-Request-ID"
_HEADER = REQUEST_ID.lower().encode()
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")  # goes into logs and back into a header
_QUIET = frozenset({"/livez", "/readyz", "/metrics", "/progress"})  # asked every few seconds
_PATH = 500  # characters of a path in a line: 64 kB in each would soon push all others out of a bounded log
_STATUS_CLIENT_GONE = 499  # never sent; nginx's name for it


class Observed:
    """ASGI middleware. Puts `request_id` into the request's state; handlers put `outcome` there.

    Args:
        app: what it is around.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = log.bind()  # once, not for each line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        start = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [pair for pair in message.get("headers", ()) if pair[0] != _HEADER]
                message["headers"] = [*headers, (_HEADER, request_id.encode())]
            await send(message)

        with tracing.request(scope, request_id):
            metrics.REQUESTS_IN_FLIGHT.inc()
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                status, state["outcome"] = _STATUS_CLIENT_GONE, "disconnected"
            except Exception:
                self._log.exception("defect", path=scope["path"][:_PATH])
                state["outcome"] = "internal-error"
                if status:  # too late for another answer; the server closes the connection
                    raise
                body = problem("internal-error", "the request met a defect; the log has it", request_id)
                await problem_response(body)(scope, receive, send_with_id)
            finally:
                metrics.REQUESTS_IN_FLIGHT.dec()
                self._record(scope, status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's template, never the path: a scanner must not make a time series for each of its guesses.
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        outcome = scope["state"].get("outcome") or ("ok" if 0 < status < 400 else "error")
        requests, duration = _series(route, outcome)
        requests.inc()
        duration.observe(seconds)
        tracing.answered(route, status, outcome)
        level = self._log.debug if route in _QUIET else self._log.info
        if status >= 500:  # a fault of ours, which whoever looks for faults must find
            level = self._log.warning
        level(
            "request",
            method=scope["method"],
            path=scope["path"][:_PATH],
            status=status,
            outcome=outcome,
            duration_ms=round(seconds * 1000, 2),
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER:
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
            break
    return os.urandom(16).hex()


@lru_cache(maxsize=1024)
def _series(route: str, outcome: str) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(route, outcome), metrics.REQUEST_DURATION.labels(route)
