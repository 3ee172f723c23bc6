"""One server process: uvicorn's server, told how to begin and how to end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from service import heartbeat
from service.batcher import Batcher
from service.heartbeat import Heart
from service.http.protocol import BoundedProtocol, bounded_protocol
from service.settings import Settings

log = structlog.get_logger()

_BACKLOG = 2048  # connections that may wait to be accepted; a burst of clients is not refused
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: its terminal was closed
_HEAR_OUT_S = 0.5  # for a connection that was just made to say what it wants
_MARGIN_S = 5  # on top of the grace, for the end of the application itself
_LAST_S = 3  # after that, for the end of the process: spans are sent within 2
# Containers more than are there; Python would look at the young ones after 700. What 64 requests under way
# have stays below: it comes and goes in waves, and each wave would be looked at.
_COLLECT_AFTER = 20_000
_KEEP_ALIVE_S = 75  # longer than the 60 s of common load balancers, so that they are the ones who close


class Server(uvicorn.Server):
    """uvicorn's server that stops in order, with status 0, when it is asked to; and at once when asked again.

    Args:
        app: told that it is leaving.
        settings: how long it goes on, and how long it may take to finish.
        heart: beats while the event loop turns, until the process ends; None: nobody listens.
    """

    def __init__(self, app: FastAPI, settings: Settings, heart: Heart | None = None) -> None:
        super().__init__(_config(app, settings))
        self._app = app
        self._settings = settings
        self._heart = heart
        self._limit: threading.Timer | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles those that are not ignored (nohup), and does not raise them again, as uvicorn does."""
        numbers = [number for number in _HANDLED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Asks to stop; the second time, ends the process as the signal does where nobody handles it."""
        if sig == signal.SIGHUP:
            # It comes twice from a terminal that is closed: of its shell, and of the kernel.
            signal.signal(sig, signal.SIG_IGN)
        elif self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does; what is there then stays, and the garbage collector need not look at it."""
        bound = [listener.dup() for listener in sockets or ()]
        await super().startup(sockets)
        await self._check_listening(bound)
        gc.collect()
        gc.freeze()
        # A cycle waits a little longer; a request makes some hundred containers, and no cycles in most cases.
        gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
        if self._heart is not None:
            self._beat(self._heart)

    def _beat(self, heart: Heart) -> None:
        heart.beat()
        asyncio.get_running_loop().call_later(heartbeat.EVERY_S, self._beat, heart)

    async def _check_listening(self, bound: list[socket.socket]) -> None:
        """Gives up where another process has begun to listen on the port since it was bound.

        The kernel lets both bind it as long as nobody listens, and uvloop says nothing about the failure.
        """
        with ExitStack() as until_checked:
            for listener in bound:
                until_checked.enter_context(listener)
            if all(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in bound):
                return
        log.error("the port is in use", reason="another process has taken it during the start")
        await self.lifespan.shutdown()
        sys.exit(STARTUP_FAILURE)

    async def main_loop(self) -> None:
        """Until told to stop; then it is not ready, but takes requests until nobody sends any more."""
        await super().main_loop()
        batcher: Batcher = self._app.state.batcher
        batcher.announce_shutdown()
        log.info("stopping", delay_s=self._settings.shutdown_delay_s, grace_s=self._settings.shutdown_grace_s)
        await asyncio.sleep(self._settings.shutdown_delay_s)
        # An engine that hangs must not keep the process.
        self._end_after(self._settings.shutdown_grace_s + _MARGIN_S, status=1)

    def _end_after(self, seconds: float, status: int) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = threading.Timer(seconds, os._exit, (status,))
        self._limit.daemon = True
        self._limit.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the port once everyone who found it open has been heard, then ends as uvicorn does.

        The kernel completes connections before we accept them, and clients send with the first packet that
        they can: closing the listener at once would reset requests that are already here.
        """
        waiting = [listener.dup() for listener in sockets or ()]
        for server in self.servers:
            server.close()
        for listener in waiting:
            with listener:
                await self._accept_all(listener)
        until = asyncio.get_running_loop().time() + _HEAR_OUT_S
        while any(
            isinstance(connection, BoundedProtocol) and connection.cycle is None
            for connection in self.server_state.connections
        ):
            if asyncio.get_running_loop().time() > until:
                break  # a connection that says nothing
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)
        # All is done. A thread that is left, asking a name server which does not answer, is not waited for.
        self._end_after(_LAST_S, status=0)

    async def _accept_all(self, listener: socket.socket) -> None:
        """Takes the connections that the kernel has completed and nobody accepted yet."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # none is left
                return
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> BoundedProtocol:
        made = bounded_protocol(self._settings.header_timeout_s)
        return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings.header_timeout_s),
        loop="uvloop",
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,  # the middleware's line has the request's id and outcome
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
