"""A real Redis server that a test may stop, pause and fill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import RedisError

_PROGRAM = shutil.which("redis-server")
_TIMEOUT_S = 20


class RedisServer:
    """`redis-server` on a port of its own that keeps nothing on disk. It is not running until `start`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, *options: str) -> None:
        """Starts it empty, and waits until it answers."""
        assert _PROGRAM is not None
        self._process = subprocess.Popen(
            [
                *(_PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
                *("--save", "", "--appendonly", "no", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _TIMEOUT_S
        with self.client() as client:
            while not _answers(client):
                assert time.monotonic() < deadline, "redis-server does not answer"
                assert self._process.poll() is None, "redis-server has ended"
                time.sleep(0.02)

    def stop(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """It accepts connections and commands, and answers none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def client(self) -> Redis:
        return Redis(port=self.port)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A server that is not running yet; skips the test where the program is missing, but fails in CI."""
    if _PROGRAM is None:
        reason = "needs redis-server, which is not installed (apt-get install redis-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(folder)
        try:
            yield server
        finally:
            server.stop()
