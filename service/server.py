"""Starts and stops the server processes."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from model.bundle import BundleError
from service.allocator import give_back_freed_memory
from service.app import create_app
from service.batcher import Batcher
from service.encoder_engine import check_engine, make_engine
from service.engine import EngineError
from service.http import api_keys
from service.http.api_keys import ApiKeyError
from service.http.protocol import BoundedProtocol, bounded_protocol
from service.settings import Settings, misspelt
from service.supervisor import Supervisor
from service.telemetry import logs, metrics_server, tracing
from service.telemetry.metrics import MULTIPROCESS_DIR
from service.telemetry.tracing import TracingError

log = structlog.get_logger()

_BACKLOG = 2048  # connections that may wait to be accepted; a burst of clients is not refused
_HANDLED = (signal.SIGINT, signal.SIGTERM)
_HEAR_OUT_S = 0.5  # for a connection that was just made to say what it wants
_MARGIN_S = 5  # on top of the grace, for the end of the application itself
_COLLECT_AFTER = 5_000  # containers more than are there; Python would look at the young ones after 700
_KEEP_ALIVE_S = 75  # longer than the 60 s of common load balancers, so that they are the ones who close


class StartError(Exception):
    """The server cannot start; the message is one line that says why."""


class _Server(uvicorn.Server):
    """uvicorn's server that stops in order, with status 0, when it is asked to; and at once when asked again.

    Args:
        app: told that it is leaving.
        settings: how long it goes on, and how long it may take to finish.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(_config(app, settings))
        self._app = app
        self._settings = settings

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles SIGINT and SIGTERM without raising them again afterwards, as uvicorn does."""
        numbers = [number for number in _HANDLED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Asks to stop; the second time, ends the process as the signal does where nobody handles it."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does; what is there then stays, and the garbage collector need not look at it."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        # A cycle waits a little longer; a request makes some hundred containers, and no cycles in most cases.
        gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])

    async def main_loop(self) -> None:
        """Until told to stop; then it is not ready, but takes requests until nobody sends any more."""
        await super().main_loop()
        batcher: Batcher = self._app.state.batcher
        batcher.announce_shutdown()
        log.info("stopping", delay_s=self._settings.shutdown_delay_s, grace_s=self._settings.shutdown_grace_s)
        await asyncio.sleep(self._settings.shutdown_delay_s)
        # An engine that hangs must not keep the process.
        limit = threading.Timer(self._settings.shutdown_grace_s + _MARGIN_S, os._exit, (1,))
        limit.daemon = True
        limit.start()

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


def bind(host: str, port: int) -> socket.socket:
    """Binds the address before anything expensive is done.

    Raises:
        StartError: the address is in use, not ours, or no address.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: f"port {port} is in use; stop what listens there or choose another --port",
            errno.EACCES: f"port {port} needs privileges; choose one above 1023",
            errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host",
        }.get(error.errno or 0, error.strerror or str(error))
        raise StartError(f"cannot listen on {host}:{port}: {reason}") from error
    listener.set_inheritable(True)
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves until told to stop by SIGTERM or SIGINT, then finishes the requests under way.

    Args:
        settings: of this process and of its workers.
        listener: a bound socket.

    Raises:
        StartError: the bundle or its engine cannot be used, or a worker does not start.
    """
    logs.configure(settings.log_level, settings.log_format)
    for name, like in misspelt(os.environ).items():
        log.warning("no such setting", variable=name, did_you_mean=like)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    listening = {"url": url, "docs": f"{url}/docs", "workers": settings.workers}
    if settings.workers == 1:
        _serve_metrics(settings, host)
        _serve_alone(settings, listener, listening)
        return
    try:  # workers do it again; here its errors are one line
        api_keys.load(settings.api_keys, settings.api_keys_file)
        check_engine(settings)
    except (BundleError, EngineError, ApiKeyError) as error:
        raise StartError(str(error)) from error
    log.info("listening", **listening)
    with tempfile.TemporaryDirectory(prefix="landmoe-metrics-") as folder:
        os.environ[MULTIPROCESS_DIR] = folder
        _serve_metrics(settings, host)
        grace_s = settings.shutdown_grace_s + settings.shutdown_delay_s
        supervisor = Supervisor(partial(_work, settings), settings.workers, listener, grace_s)
        if not supervisor.run():
            raise StartError("a worker did not start or did not stop in order; the lines above say why")


def _serve_metrics(settings: Settings, host: str) -> None:
    """On their own port, if they have one."""
    if settings.metrics_port is None:
        return
    try:
        metrics_server.start(host, settings.metrics_port)
    except OSError as error:
        raise StartError(
            f"cannot serve metrics on {host}:{settings.metrics_port} (LANDMOE_METRICS_PORT): {error.strerror}"
        ) from error


def _serve_alone(settings: Settings, listener: socket.socket, listening: dict[str, Any] | None) -> None:
    give_back_freed_memory()
    try:
        if settings.tracing:
            tracing.configure()
        app = create_app(settings, make_engine(settings))
    except (BundleError, EngineError, ApiKeyError, TracingError) as error:
        raise StartError(str(error)) from error
    if listening:
        log.info("listening", **listening)
    try:
        _Server(app, settings).run(sockets=[listener])
    except SystemExit as error:  # uvicorn's way to say that the application did not start
        raise StartError("the service did not start; the lines above say why") from error


def _work(settings: Settings, listener: socket.socket) -> None:
    """One of several processes."""
    logs.configure(settings.log_level, settings.log_format)
    try:
        _serve_alone(settings, listener, None)
    except StartError as error:
        log.error("worker did not start", reason=str(error))  # noqa: TRY400  # the reason is enough
        sys.exit(STARTUP_FAILURE)


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
