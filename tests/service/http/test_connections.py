"""What a request leaves behind when it is over."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service.http.connections import WATCH, Connections


class Cycle:
    """A request as uvicorn holds it: it knows its scope, and hands out a method of its own."""

    def __init__(self) -> None:
        state = SimpleNamespace(batcher=SimpleNamespace(leaving=False))
        self.scope: Scope = {"type": "http", "app": SimpleNamespace(state=state), "state": {}}
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"a body", "more_body": False}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def works(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    scope["state"][WATCH]()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"an answer"})


class Body:
    """What a request brings along."""


def test_a_request_is_freed_when_it_is_over() -> None:
    """Not when the garbage collector comes: it would hold the bodies of all until then."""

    async def body() -> None:
        connections = Connections(works)
        kept: list[weakref.ref[Any]] = []
        gc.disable()
        try:
            for _ in range(20):
                cycle = Cycle()
                body_of_it = cycle.scope["state"]["body"] = Body()
                kept += [weakref.ref(cycle), weakref.ref(body_of_it)]
                await connections(cycle.scope, cycle.receive, cycle.send)
                assert len(cycle.sent) == 2
            del cycle, body_of_it
            await asyncio.sleep(0)
            assert sum(reference() is not None for reference in kept) <= 2
        finally:
            gc.enable()

    asyncio.run(body())
