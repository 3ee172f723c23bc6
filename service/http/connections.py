"""What a request has to do with its connection: clients that go, and a server that does."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import problem, problem_response

# Before that, a client's end is not looked for: most requests that the cache answers need no task that does.
_WATCH_AFTER_S = 0.002
WATCH = "watch"  # in a request's state: what a handler calls that has read the body and begins to work


class Connections:
    """ASGI middleware. Cancels a request whose client closes the connection before it is answered.

    Its tiles leave the queue before they cost the engine's time. A server that was told to stop closes its
    connections with their next answer, so that clients turn elsewhere; a request that it must cancel, because
    the time it has to finish is over, is answered 503.

    Args:
        app: what it is around. While it reads the body, it hears of the client's end itself; then it calls
            what the request's state has as `WATCH`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        Raises:
            ClientDisconnect: the client has gone.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = asyncio.current_task()
        watch: asyncio.Task[None] | None = None
        timer: asyncio.TimerHandle | None = None
        gone = started = answered = received = False

        async def wait_for_end() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            if request is not None and not answered:
                gone = True
                request.cancel()

        def start_watch() -> asyncio.Task[None]:
            nonlocal watch
            watch = watch or asyncio.get_running_loop().create_task(wait_for_end())
            return watch

        def watch_soon() -> None:
            nonlocal timer
            timer = timer or asyncio.get_running_loop().call_later(_WATCH_AFTER_S, start_watch)

        async def receive_or_watch() -> Message:
            nonlocal received
            if received:  # the body is over; what comes is the end
                await asyncio.shield(start_watch())
                return {"type": "http.disconnect"}
            message = await receive()
            received = message["type"] == "http.request" and not message.get("more_body", False)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal started, answered
            started = True
            if message["type"] == "http.response.start" and scope["app"].state.batcher.leaving:
                MutableHeaders(scope=message)["Connection"] = "close"
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        scope.setdefault("state", {})[WATCH] = watch_soon
        try:
            await self._app(scope, receive_or_watch, send_and_note)
        except asyncio.CancelledError:
            if gone:
                assert request is not None  # noqa: S101  # else nothing cancelled it
                request.uncancel()
                raise ClientDisconnect from None
            if not started:
                state = scope.get("state", {})
                state["outcome"] = "not-ready"
                detail = "the service was told to stop and the request was not finished in time"
                body = problem("not-ready", detail, state.get("request_id", ""))
                await problem_response(body, {"Connection": "close"})(scope, receive, send)
            raise
        finally:
            scope["state"].pop(WATCH, None)  # it refers back to the request: a cycle
            if timer is not None:
                timer.cancel()
            if watch is not None:
                watch.cancel()
