"""At the door: API keys, headers that tell browsers to be careful, bodies that come too slowly."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError, ServiceError, problem, problem_response
from service.http.api_keys import ApiKeys
from service.http.unread import MIN_BYTES_PER_S
from service.http.within import Within

API_KEY = "X-API-Key"
# Orchestrators and Prometheus have no key, and the documentation tells nothing about the data.
_OPEN = frozenset({"/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"})
_OPEN_BELOW = "/docs/assets/"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NAMES = frozenset(name.lower().encode() for name in (*_HEADERS, "Content-Security-Policy"))
# What pages of other origins may read of an answer (CORS).
EXPOSED = (
    "X-Request-ID",
    "Server-Timing",
    "X-Cache",
    "X-Batch-Size",
    "X-Model",
    "X-Summary",
    "X-Warnings",
    "Retry-After",
    "Content-Disposition",
)
# Answers are data: nothing in them is to be run or loaded. The documentation page runs its own scripts.
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Guard:
    """ASGI middleware.

    Args:
        app: what it is around.
        keys: who is let in.
        body_timeout_s: the longest silence while a body is read.
        allow_origins: whether browsers may use answers elsewhere (CORS).
    """

    def __init__(
        self, app: ASGIApp, keys: ApiKeys, body_timeout_s: float, *, allow_origins: bool = False
    ) -> None:
        self._app = app
        self._keys = keys
        self._body_timeout_s = body_timeout_s
        headers = dict(_HEADERS)
        if allow_origins:
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        self._data_headers = _raw(headers | {"Content-Security-Policy": _DATA_POLICY})
        self._page_headers = _raw(headers | {"Content-Security-Policy": _PAGE_POLICY})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        added = self._page_headers if path == "/docs" else self._data_headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if any(name in _NAMES for name, _ in headers):
                    given = {name for name, _ in headers}
                    headers += [pair for pair in added if pair[0] not in given]
                else:
                    headers += added
                message["headers"] = headers
            await send(message)

        try:
            self._check_key(scope, path)
        except ServiceError as error:
            state = scope["state"]
            state["outcome"] = error.code
            body = problem(error.code, str(error), state["request_id"])
            await problem_response(body, error.headers)(scope, receive, send_with_headers)
            return
        await self._app(scope, _Body(receive, self._body_timeout_s), send_with_headers)

    def _check_key(self, scope: Scope, path: str) -> None:
        if not self._keys or is_open(path):
            return
        given = Headers(scope=scope).get(API_KEY)
        if given is None or not self._keys.knows(given):
            came = "no API key came" if given is None else "the API key is not known"
            raise ServiceError(
                "unauthorized",
                f"{came}; expected one of this service's keys in the header {API_KEY}",
                # The body is not read: the connection cannot be used for another request.
                {"WWW-Authenticate": f'ApiKey realm="landmoe", header="{API_KEY}"', "Connection": "close"},
            )


def is_open(path: str) -> bool:
    """Whether a path is answered without a key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class _Body:
    """A request's messages; those of its body must not be long in coming."""

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._start = time.monotonic()
        self._received = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # what comes is the end of the connection, whenever that is
            return await self._receive()
        now = time.monotonic()
        # The first silence is free; after that the whole body must have come at the slowest rate.
        allowed_s = self._start + self._timeout_s + self._received / MIN_BYTES_PER_S - now
        try:
            message = await Within(self._receive(), max(0.0, min(self._timeout_s, allowed_s)))
        except TimeoutError as error:
            self._complete = True
            raise RequestError(
                "slow-body",
                f"{self._received:,} bytes of the body came in {now - self._start:.0f} s and then too few; "
                f"expected no silence over {self._timeout_s:g} s, and {MIN_BYTES_PER_S:,} bytes/s",
                {"Connection": "close"},
            ) from error
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message
