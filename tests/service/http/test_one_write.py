"""How often an answer is written to its connection, and when."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.protocol import bounded_protocol

Send = Callable[[dict[str, Any]], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """A connection that remembers each write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def talk(request: bytes, application: Callable[[Send, Wire], Awaitable[None]]) -> Wire:
    """What is written to a connection on which a request came to an application."""
    wire = Wire()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        await application(send, wire)

    async def main() -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
        connection = bounded_protocol(10)(config=config, server_state=ServerState(), app_state={})
        connection.connection_made(wire)
        connection.data_received(request)
        async with asyncio.timeout(10):
            while connection.tasks:
                await asyncio.gather(*connection.tasks)
                await asyncio.sleep(0)
        connection.connection_lost(ConnectionResetError())

    asyncio.run(main())
    return wire


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def complete(send: Send, _: Wire) -> None:
    await send(start((b"content-length", b"5")))
    await send(body(b"whole"))


def test_a_complete_answer_is_one_write() -> None:
    (written,) = talk(GET, complete).writes
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\nwhole")


def test_each_of_several_requests_on_a_connection_is_one_write() -> None:
    writes = talk(GET + GET + GET, complete).writes
    assert [w.startswith(b"HTTP/1.1 200") and w.endswith(b"\r\n\r\nwhole") for w in writes] == [True] * 3


def test_what_a_request_was_is_freed_with_its_answer() -> None:
    """Not when the garbage collector comes, which would come for that."""

    cycles: list[weakref.ref[Any]] = []

    async def remembered(send: Send, wire: Wire) -> None:
        cycles.append(weakref.ref(send.__self__))  # type: ignore[attr-defined]  # a method of uvicorn's
        await complete(send, wire)

    gc.disable()
    try:
        talk(GET + GET + GET, remembered)
        assert len(cycles) == 3
        assert sum(cycle() is not None for cycle in cycles) <= 1  # the last one of the connection
    finally:
        gc.enable()


def test_a_stream_begins_with_its_first_piece_and_goes_on_piece_by_piece() -> None:
    seen: list[int] = []

    async def stream(send: Send, wire: Wire) -> None:
        await send(start())
        for piece in (b"one", b"two", b"three"):
            await send(body(piece, more=True))
            seen.append(len(wire.writes))
        await send(body(b""))

    writes = talk(GET, stream).writes
    assert seen == [1, 2, 3]
    assert writes[0].endswith(b"\r\n\r\n3\r\none\r\n")
    assert writes[1:] == [b"3\r\ntwo\r\n", b"5\r\nthree\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
def test_an_answer_without_a_body_is_written(connection: bytes) -> None:
    request = b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\n\r\n"
    wire = talk(request, complete)
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"".join(wire.writes).endswith(b"\r\n\r\n")
    assert wire.closed is (connection == b"close")


def test_a_client_that_waits_to_send_its_body_is_told_to_go_on() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    first, second = talk(request, complete).writes
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.endswith(b"\r\n\r\nwhole")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_written_of_an_answer_that_breaks_off_before_its_body() -> None:
    async def broken(send: Send, _: Wire) -> None:
        await send(start((b"content-length", b"5")))
        raise ValueError("broken")

    wire = talk(GET, broken)
    assert wire.writes == []
    assert wire.closed
