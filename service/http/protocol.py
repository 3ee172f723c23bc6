"""HTTP/1.1 connections whose headers must be small and soon complete; uvicorn limits neither.

The same holds for what follows a body in chunks (RFC 9112, 7.1.2), which nobody reads here, and for the rest
of a body whose request has been answered before; and answers must be read. A client that offers another
protocol (`Upgrade: h2c`, as Java's does with every request) is answered in this one; httptools would take its
body for the next request.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import PROBLEM_MEDIA_TYPE, problem_of_status
from service.http.one_write import OneWrite
from service.http.unread import MIN_BYTES_PER_S, Unread
from service.json_text import dumps
from service.telemetry import metrics

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

# Query parameters and headers of one request: ten times what browsers and proxies send.
_MAX_HEADER_BYTES = 65_536
_UNREAD = 4  # times the time for headers: how long an answer may lie there; clients may have to think


class _HeadersError(Exception):
    """More headers came than are read."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection. One that sends headers too slowly, or too many, is closed with a problem object."""

    header_timeout_s: float = 15

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._piece_bytes = 0  # of what came last
        self._in_headers = True
        self._in_body = False
        self._bytes_beside_body = 0  # since the last of the body: sizes of chunks and trailers
        self._bytes_of_rest = 0
        self._deaf = False  # what comes is not read any more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """A client has come; it must say what it wants."""
        super().connection_made(transport)
        self._unread = Unread(transport, self.loop, _UNREAD * self.header_timeout_s)
        self._expect_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop_timer()
        self._unread.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._unread.watch()

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        self._unread.stop()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._deaf:
            return
        answered = self.cycle is not None and self.cycle.response_complete
        # A request may be answered, refused for instance, while its body is still on its way.
        if answered and not self._in_headers and not self._in_body:
            self._in_headers, self._header_bytes = True, 0  # the next request on a connection that was kept
        if self._in_headers:
            self._header_bytes += len(data)
        else:
            self._bytes_beside_body += len(data)
            self._bytes_of_rest += len(data)
        self._piece_bytes = len(data)
        self._parse(data)
        if self._in_headers:
            if self._header_bytes > _MAX_HEADER_BYTES:
                self._refuse_headers()
            elif self._timer is None:  # most come in one piece and need none
                self._expect_rest()
        elif self._in_body and self._bytes_beside_body > _MAX_HEADER_BYTES:
            self._refuse(
                431,
                f"more than {_MAX_HEADER_BYTES:,} bytes came that are no part of the body; expected fewer",
            )

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if not self._in_headers:
            self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Its headers are over, and what comes now is its body."""
        if self.parser.should_upgrade():  # comes again without that, see `_parse`
            return
        # They may come in one piece with what is behind them, and behind another request.
        if self._piece_bytes > _MAX_HEADER_BYTES and self._bytes_of_head() > _MAX_HEADER_BYTES:
            raise _HeadersError
        super().on_headers_complete()  # refuses addresses that are none
        self._in_headers, self._in_body = False, True
        self._bytes_beside_body = 0
        self._stop_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. One behind the body is not kept: nothing asks for it."""
        if not self._in_body:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Its body is over."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered with a problem object, too."""
        self._refuse(400, f"{msg} Expected HTTP/1.1")

    def _parse(self, data: bytes) -> None:
        """Reads requests; the head of one that offers another protocol is read again without the offer."""
        self._unset_keepalive_if_required()
        pieces = [memoryview(data)]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(400, "CONNECT came, and this is no proxy. Expected GET or POST")
                    return
                pieces += [piece[offer.args[0] :], memoryview(self._head_without_offer())]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _HeadersError):
                    self._refuse_headers()
                    return
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_offer(self) -> bytes:
        head = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        return b"%s %s HTTP/%s\r\n" % head + b"".join(kept) + b"\r\n"

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Begins to answer a request."""
        answer = OneWrite(self.transport, cycle)
        cycle.transport = cast(asyncio.Transport, answer)
        cycle.on_response = partial(self._answered, answer)
        super()._start_asgi_task(cycle, app)

    def _answered(self, answer: OneWrite) -> None:
        answer.complete()
        answer.let_go()
        self.on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._bytes_of_rest = 0
            self._watch_rest()

    def _watch_rest(self) -> None:
        self._timer = self.loop.call_later(self.header_timeout_s, self._check_rest)

    def _check_rest(self) -> None:
        # A client that sends less of a body that nobody waits for is none that will read its answer.
        if self._bytes_of_rest < MIN_BYTES_PER_S * self.header_timeout_s:
            self.transport.close()
        else:
            self._bytes_of_rest = 0
            self._watch_rest()

    def _expect_rest(self) -> None:
        self._timer = self.loop.call_later(self.header_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self._header_bytes or self._owes_answer:
            self._refuse(408, f"the headers did not end within {self.header_timeout_s:g} s")
        else:
            self.transport.close()

    @property
    def _owes_answer(self) -> bool:
        """Whether what comes lies behind a request that is not answered yet."""
        return not self._in_body and self.cycle is not None and not self.cycle.response_complete

    def _bytes_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)  # ": ", "\r\n"

    def _refuse_headers(self) -> None:
        self._refuse(431, f"headers of more than {_MAX_HEADER_BYTES:,} bytes came; expected fewer")

    def _refuse(self, status: int, detail: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._owes_answer:  # a refusal would be taken for it, or stand in the middle of it
            self.cycle.keep_alive, self._deaf = False, True
            return
        if self._in_body and self.cycle.response_started:  # it has its answer
            self.transport.close()
            return
        body = dumps(problem_of_status(status, detail, ""))
        metrics.REQUESTS.labels("unmatched", f"http-{status}").inc()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, b"Refused", PROBLEM_MEDIA_TYPE.encode(), len(body), body)
        )
        self.transport.close()


def bounded_protocol(header_timeout_s: float) -> type[BoundedProtocol]:
    """The protocol with a setting, as uvicorn wants it: a class."""
    return type("ConfiguredProtocol", (BoundedProtocol,), {"header_timeout_s": header_timeout_s})
