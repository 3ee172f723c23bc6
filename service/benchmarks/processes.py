"""Servers in processes of their own: started on a free port, kept to some CPUs, weighed, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from service.benchmarks.load import LoadError
from service.settings import PREFIX, Settings

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 30
_HERE = "service.benchmarks."


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    process: psutil.Process

    def tree(self) -> list[psutil.Process]:
        """Its process and those that this one has started."""
        return [self.process, *self.process.children(recursive=True)]

    def rss_mb(self) -> float:
        """Resident memory of all its processes; what they share counts in each."""
        total = 0
        for process in self.tree():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6


@contextmanager
def landmoe(settings: Settings, **given: object) -> Iterator[Server]:
    """Our service, with settings on top of others."""
    chosen = settings.model_dump(exclude_defaults=True, mode="json") | given
    environment = {PREFIX + name.upper(): str(value) for name, value in chosen.items()}
    # A line for each request would be written to somebody who does not read it.
    environment[PREFIX + "LOG_LEVEL"] = "warning"
    code = "from service.cli import main; main()"
    with _started(["-c", code, "serve", "--port", "{port}"], "/readyz", environment) as server:
        yield server


@contextmanager
def plain(encoder: Path) -> Iterator[Server]:
    """FastAPI around ONNX Runtime (plain_app.py)."""
    with _started(["-m", _HERE + "plain_app", str(encoder), "{port}"], "/readyz") as server:
        yield server


@contextmanager
def litserve(encoder: Path, workers: int) -> Iterator[Server]:
    """LitServe around ONNX Runtime (litserve_app.py), with so many processes that run the model."""
    arguments = ["-m", _HERE + "litserve_app", str(encoder), str(workers), "{port}"]
    with _started(arguments, "/health") as server:
        yield server


@contextmanager
def empty() -> Iterator[Server]:
    """A FastAPI route that does nothing (empty_app.py)."""
    with _started(["-m", _HERE + "empty_app", "{port}"], "/readyz") as server:
        yield server


@contextmanager
def apart(server: Server) -> Iterator[bool]:
    """Keeps a server to one CPU and this process to the others; says whether the machine allows it."""
    if not hasattr(os, "sched_setaffinity") or len(cpus := sorted(os.sched_getaffinity(0))) < 2:
        yield False
        return
    _keep(server.tree(), cpus[:1])
    os.sched_setaffinity(0, cpus[1:])
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cpus)
        _keep(server.tree(), cpus)


@contextmanager
def still(servers: Iterable[Server]) -> Iterator[None]:
    """Stops servers for a while: one that polls with nothing to do would slow another's measurement."""
    stopped = [process for server in servers for process in server.tree()]
    try:
        for process in stopped:
            process.suspend()
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _keep(processes: Sequence[psutil.Process], cpus: Sequence[int]) -> None:
    """Every thread of the processes: a thread that runs already does not follow its process."""
    for process in processes:
        for thread in process.threads():
            try:
                os.sched_setaffinity(thread.id, cpus)
            except ProcessLookupError:
                continue


@contextmanager
def _started(
    arguments: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    popen = subprocess.Popen(command, env={**os.environ, **(environment or {})})  # noqa: S603  # ourselves
    server = Server(f"http://127.0.0.1:{port}", psutil.Process(popen.pid))
    try:
        _wait_until_ready(server.url + ready, popen)
        yield server
    finally:
        _stop(server, popen)


def _stop(server: Server, popen: subprocess.Popen[bytes]) -> None:
    children = server.process.children(recursive=True) if popen.poll() is None else []
    popen.terminate()
    try:
        popen.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    for child in psutil.wait_procs(children, timeout=1)[1]:  # LitServe leaves some behind
        child.kill()


def _wait_until_ready(url: str, popen: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end and popen.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own http address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise LoadError(f"the server did not become ready at {url}; exit status {popen.poll()}")
