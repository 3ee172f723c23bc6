"""Starts and stops the server processes."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from model import bundle
from model.bundle import BundleError
from service import logs
from service.app import create_app
from service.engine import EngineError, make_engine
from service.metrics import MULTIPROCESS_DIR
from service.settings import PREFIX, Settings

log = structlog.get_logger()

_BACKLOG = 2048  # connections that may wait to be accepted; a burst of clients is not refused
_KEEP_ALIVE_S = 75  # longer than the 60 s of common load balancers, so that they are the ones who close


class StartError(Exception):
    """The server cannot start; the message is one line that says why."""


class _Server(uvicorn.Server):
    """uvicorn's server that ends with status 0 when it was asked to stop and has done so in order."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles SIGINT and SIGTERM without raising them again afterwards, as uvicorn does."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
        settings: handed to worker processes through the environment.
        listener: a bound socket.

    Raises:
        StartError: the bundle or its engine cannot be used, or no worker starts.
    """
    logs.configure(settings.log_level, settings.log_format)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        if settings.workers == 1:
            app = create_app(settings, make_engine(settings))
            log.info("listening", url=url, docs=f"{url}/docs")
            _Server(_config(app, settings)).run(sockets=[listener])
        else:
            bundle.load(settings.bundle)  # workers load it again; here its errors are one line
            log.info("listening", url=url, docs=f"{url}/docs", workers=settings.workers)
            _serve_with_workers(settings, listener)
    except (BundleError, EngineError) as error:
        raise StartError(str(error)) from error


def _serve_with_workers(settings: Settings, listener: socket.socket) -> None:
    _export(settings)
    with tempfile.TemporaryDirectory(prefix="landmoe-metrics-") as folder:
        os.environ[MULTIPROCESS_DIR] = folder
        workers = Multiprocess(_config("service.app:from_environment", settings), sockets=[listener])
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise StartError("a worker did not start; the lines above say why")


def _config(app: FastAPI | str, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        http="httptools",
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


def _export(settings: Settings) -> None:
    """Writes settings that differ from the defaults to the environment, where workers read them."""
    for name, value in settings.model_dump(exclude_defaults=True).items():
        os.environ[PREFIX + name.upper()] = str(value)
