"""Starts and stops the server processes."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import structlog
from uvicorn.config import STARTUP_FAILURE

from model.bundle import BundleError
from service.allocator import give_back_freed_memory
from service.app import create_app
from service.encoder_engine import check_engine, make_engine
from service.engine import EngineError
from service.file_limit import raise_limit
from service.heartbeat import Heart, own_heart
from service.http import api_keys
from service.http.api_keys import ApiKeyError
from service.http.fetch import ProxyError, check_proxies
from service.http.spool import Spool
from service.orderly_server import Server
from service.settings import Settings, misspelt
from service.supervisor import Supervisor
from service.telemetry import logs, metrics_server, tracing, worker_files
from service.telemetry.tracing import TracingError

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the message is one line that says why."""


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
    """Serves until told to stop by SIGTERM, SIGINT or SIGHUP, then finishes the requests under way.

    Args:
        settings: of this process and of its workers.
        listener: a bound socket.

    Raises:
        StartError: the bundle or its engine cannot be used, or a worker does not start.
    """
    logs.configure(settings.log_level, settings.log_format)
    for name, like in misspelt(os.environ).items():
        log.warning("no such setting", variable=name, did_you_mean=like)
    raise_limit()
    host, port = listener.getsockname()[:2]
    if settings.metrics_port == port:  # both could be bound
        raise StartError(f"LANDMOE_METRICS_PORT is {port}, the service's own port; choose another")
    _check_spool(settings)
    try:
        check_proxies(settings.fetch_hosts)
    except ProxyError as error:
        raise StartError(str(error)) from error
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    listening = {"url": url, "docs": f"{url}/docs", "workers": settings.workers}
    if settings.workers == 1:
        _serve_metrics(settings, host)
        _serve_alone(settings, listener, listening)
        return
    try:  # workers do it again; here its errors are one line
        api_keys.load(settings.api_keys, settings.api_keys_file)
        digest = check_engine(settings)
    except (BundleError, EngineError, ApiKeyError) as error:
        raise StartError(str(error)) from error
    with ExitStack() as held:
        try:
            folder = held.enter_context(worker_files.folder())
        except OSError as error:
            raise StartError(
                f"no folder can be made for the metrics of several workers: {error}; expected /dev/shm or "
                "the temporary folder to be writable"
            ) from error
        log.info("listening", **listening)
        os.environ[worker_files.MULTIPROCESS_DIR] = str(folder)
        _serve_metrics(settings, host)
        grace_s = settings.shutdown_grace_s + settings.shutdown_delay_s
        supervisor = Supervisor(partial(_work, settings, digest), settings.workers, listener, grace_s)
        if not supervisor.run():
            raise StartError("a worker did not start or did not stop in order; the lines above say why")


def _check_spool(settings: Settings) -> None:
    """The application does it again; here its error is one line."""
    try:
        Spool(settings.spool_dir, settings.spool_memory_bytes, settings.max_spool_bytes).prepare()
    except OSError as error:
        name = (
            "the temporary folder"
            if settings.spool_dir is None
            else f"LANDMOE_SPOOL_DIR {settings.spool_dir}"
        )
        raise StartError(
            f"{name} cannot be used: {error.strerror or error}; expected a folder to write to"
        ) from error


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


def _serve_alone(
    settings: Settings,
    listener: socket.socket,
    listening: dict[str, Any] | None = None,
    heart: Heart | None = None,
    digest: str | None = None,
) -> None:
    give_back_freed_memory()
    try:
        if settings.tracing:
            tracing.configure()
        app = create_app(settings, make_engine(settings, digest))
    except (BundleError, EngineError, ApiKeyError, TracingError) as error:
        raise StartError(str(error)) from error
    if listening:
        log.info("listening", **listening)
    try:
        Server(app, settings, heart or own_heart()).run(sockets=[listener])
    except SystemExit as error:  # uvicorn's way to say that the application did not start
        raise StartError("the service did not start; the lines above say why") from error
    finally:
        tracing.turn_off()


def _work(settings: Settings, digest: str, listener: socket.socket, heart: Heart) -> None:
    """One of several processes. All serve the bundle with this digest, also those that replace others."""
    worker_files.hold()
    logs.configure(settings.log_level, settings.log_format)
    try:
        _serve_alone(settings, listener, heart=heart, digest=digest)
    except StartError as error:
        log.error("worker did not start", reason=str(error))  # noqa: TRY400  # the reason is enough
        sys.exit(STARTUP_FAILURE)
