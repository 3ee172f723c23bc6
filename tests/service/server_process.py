"""A real server process, started as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType

import httpx

LANDMOE = Path(sys.executable).with_name("landmoe")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


class ServerProcess:
    """`landmoe serve` on a free port; `url` is where it listens, `lines` what it logged.

    Args:
        options: of the command line.
        command: another than `landmoe serve`.
        environment: on top of this process's.
    """

    def __init__(
        self, *options: str, command: Sequence[str | Path] | None = None, **environment: str
    ) -> None:
        self.lines: list[dict[str, object]] = []
        self._fresh: Queue[dict[str, object] | None] = Queue()
        self.process = subprocess.Popen(
            [*(command or (LANDMOE, "serve", "--port", "0")), *options],
            env={**os.environ, "LANDMOE_ENGINE_THREADS": "1", "LANDMOE_LOG_FORMAT": "json", **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = str(self.wait_for("listening")["url"])
        self._wait_until_ready()

    def wait_for(self, event: str) -> dict[str, object]:
        """The next log line of an event."""
        while True:
            try:
                line = self._fresh.get(timeout=START_TIMEOUT_S)
            except Empty:
                line = None
            if line is None:
                self.process.kill()
                raise AssertionError(f"the server did not log {event!r}: {self.lines}")
            if line["event"] == event:
                return line

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        self.process.kill()
        raise AssertionError(f"the server is not ready: {self.lines}")

    def stop(self) -> int:
        """Asks it to stop; its exit status."""
        self.process.terminate()
        status = self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"event": text.rstrip()}
                self.lines.append(line)
                self._fresh.put(line)
        self._fresh.put(None)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(STOP_TIMEOUT_S)


def run(
    *arguments: str, program: str | Path = LANDMOE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A `landmoe` command, or another program's, to its end."""
    return subprocess.run(
        [program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
