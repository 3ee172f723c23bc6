"""Several processes: those that die are replaced, each in its own time."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from uvicorn.config import STARTUP_FAILURE

from service import supervisor
from service.supervisor import Supervisor
from service.telemetry.worker_files import MULTIPROCESS_DIR
from tests.rasters import geotiff
from tests.service.server_process import ServerProcess


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


def start_once(folder: Path, _listener: socket.socket) -> None:
    """The first two live, until they are killed; no other starts."""
    if len(list(folder.glob("started-*"))) >= 2:
        (folder / f"failed-{os.getpid()}").touch()
        os._exit(STARTUP_FAILURE)
    (folder / f"started-{os.getpid()}").touch()
    while True:
        signal.pause()


class Short(Supervisor):
    """One that once finds no memory for another process."""

    starts = 0

    def _start(self) -> None:
        self.starts += 1
        if self.starts == 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        super()._start()


def pause(folder: Path, _listener: socket.socket) -> None:
    """Lives until it is killed."""
    (folder / f"started-{os.getpid()}").touch()
    while True:
        signal.pause()


def supervise(folder: str, work: str = "live_or_die") -> None:
    """Two of them, in a process of their own."""
    supervisor._SOON_S = 60.0  # also where other work makes a start slow
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kind = Short if work == "pause" else Supervisor
        in_order = kind(partial(globals()[work], Path(folder)), 2, listener, grace_s=0).run()
    sys.exit(0 if in_order else 1)


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


@pytest.mark.server
def test_what_workers_have_counted_outlives_them_and_their_files_do_not() -> None:
    with ServerProcess("--workers", "2") as server:
        supervisor = psutil.Process(server.process.pid)

        def workers() -> list[psutil.Process]:
            return [child for child in supervisor.children() if "spawn_main" in " ".join(child.cmdline())]

        def told(line: str) -> bool:
            try:
                return line in httpx.get(f"{server.url}/metrics").text.splitlines()
            except httpx.TransportError:  # the one that was asked died
                return False

        for _ in range(4):
            assert httpx.post(f"{server.url}/embed", content=geotiff()).status_code == 200
        first = workers()
        [folder] = {Path(process.environ()[MULTIPROCESS_DIR]) for process in first}
        for victim in first:
            victim.kill()
        deadline = time.monotonic() + 60
        while not told("landmoe_engine_workers 2.0"):  # those that came after them
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert told('landmoe_requests_total{outcome="ok",route="/embed"} 4.0')
        assert told("landmoe_worker_deaths_total 2.0")
        assert told('landmoe_request_duration_seconds_count{route="/embed"} 4.0')
        assert len(list(folder.glob("counter_*.db"))) == 3  # two live, and one is of the dead
        assert server.stop() == 0
        assert not folder.exists()


@pytest.mark.slow
def test_a_replacement_that_cannot_start_does_not_end_those_that_work(tmp_path: Path) -> None:
    arguments = f"{str(tmp_path)!r}, 'start_once'"
    code = f"from tests.service.test_supervisor import supervise; supervise({arguments})"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MULTIPROCESS_DIR: str(tmp_path)}
    ) as process:
        try:
            wait_for(tmp_path, "started-*", 2)
            one, other = (int(path.name.partition("-")[2]) for path in tmp_path.glob("started-*"))
            os.kill(one, signal.SIGKILL)
            wait_for(tmp_path, "failed-*", 3)  # it is tried again and again
            assert process.poll() is None
            os.kill(other, 0)  # is there
            os.kill(other, signal.SIGKILL)  # nobody is left who answers: whoever started it may know better
            assert process.wait(30) == 1
        finally:
            process.kill()


@pytest.mark.slow
def test_a_process_for_which_there_is_no_memory_is_started_later(tmp_path: Path) -> None:
    arguments = f"{str(tmp_path)!r}, 'pause'"
    code = f"from tests.service.test_supervisor import supervise; supervise({arguments})"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MULTIPROCESS_DIR: str(tmp_path)}
    ) as process:
        try:
            wait_for(tmp_path, "started-*", 2)
            [one, _] = (int(path.name.partition("-")[2]) for path in tmp_path.glob("started-*"))
            os.kill(one, signal.SIGKILL)
            wait_for(tmp_path, "started-*", 3)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
