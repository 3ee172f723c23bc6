"""Several processes: those that die are replaced, each in its own time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from service import supervisor
from service.supervisor import Supervisor
from service.telemetry.metrics import MULTIPROCESS_DIR


def live_or_die(folder: Path, _listener: socket.socket) -> None:
    """One process lives, until it is killed; all others die at once."""
    try:
        with (folder / "living").open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        (folder / f"died-{os.getpid()}").touch()
        os._exit(7)  # 3 is a start that failed
    while True:
        signal.pause()


def supervise(folder: str) -> None:
    """Two of them, in a process of their own."""
    supervisor._SOON_S = 60.0  # also where other work makes a start slow
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Supervisor(partial(live_or_die, Path(folder)), 2, listener, grace_s=0).run()


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 180
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, pattern
        time.sleep(0.02)


@pytest.mark.slow
def test_one_that_keeps_dying_does_not_keep_another_from_being_replaced(tmp_path: Path) -> None:
    code = f"from tests.service.test_supervisor import supervise; supervise({str(tmp_path)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MULTIPROCESS_DIR: str(tmp_path)}
    ) as process:
        try:
            wait_for(tmp_path, "died-*", 5)  # the next follows after 8 s
            living = tmp_path / "living"
            victim = int(living.read_text())
            living.unlink()
            os.kill(victim, signal.SIGKILL)
            wait_for(tmp_path, "living", 1)
            assert len(list(tmp_path.glob("died-*"))) == 5  # it did not wait for that one's turn
        finally:
            process.terminate()
