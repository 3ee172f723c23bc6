"""An answer's head and the beginning of its body leave together.

uvicorn writes them one after the other, each with a system call of its own. A process that dies between these
leaves a client with half an answer, which no gateway can ask another process for; with none, it can.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class OneWrite:
    """What the answer of one cycle writes to in place of the connection.

    Args:
        transport: the connection.
        cycle: of the request; tells when its answer has begun and when it is complete.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None  # empty once it has been written

    def write(self, data: bytes) -> None:
        """Keeps the head; sends it with what follows, and everything later at once."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif self._head is None and self._cycle.response_started:
            self._head = data
        else:  # before the answer: 100 Continue
            self._transport.write(data)

    def complete(self) -> None:
        """Sends the head of an answer that has no body, such as one to HEAD."""
        if self._head:
            self.write(b"")

    def let_go(self) -> None:
        """The answer is complete: without this, cycle and answer would wait for the garbage collector."""
        self._cycle.transport = self._transport

    def is_closing(self) -> bool:
        """Whether the connection is being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Closes the connection after what was written; the head of an answer that broke off is not sent."""
        if self._cycle.response_complete:
            self.complete()
        self._transport.close()
