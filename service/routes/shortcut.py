"""The short way to the routes for tiles, which read their request themselves and return a response.

FastAPI documents these routes. On the way to them it resolves dependencies, keeps stacks of what to close
and wraps what is sent; they need none of it, and it was a sixth of what a cached request cost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcut:
    """ASGI middleware, the innermost: calls the endpoint of a route as it is; all else goes on to FastAPI.

    Args:
        app: FastAPI's own layers and router.
        routes: with one path each, without parameters and dependencies.
        errors: that endpoints raise.
        answer_error: what becomes of them, as an exception handler.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[BaseRoute],
        errors: tuple[type[Exception], ...],
        answer_error: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }
        self._errors = errors
        self._answer_error = answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        route = None
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            route = self._routes.get((scope["method"], path))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request)
        except self._errors as error:
            response = await self._answer_error(request, error)
        await response(scope, receive, send)
