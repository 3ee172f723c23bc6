"""Several processes: those that die or freeze are replaced, each in its own time."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from uvicorn.config import STARTUP_FAILURE

from service import heartbeat, supervisor
from service.heartbeat import Heart
from service.supervisor import Supervisor
from service.telemetry.worker_files import MULTIPROCESS_DIR
from tests.rasters import geotiff
from tests.service.server_process import ServerProcess


def live_or_die(folder: Path, _listener: socket.socket, _heart: Heart) -> None:
    """One process lives, until it is killed; all others die at once."""
    try:
        with (folder / "living").open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        (folder / f"died-{os.getpid()}").touch()
        os._exit(7)  # 3 is a start that failed
    while True:
        signal.pause()


def start_once(folder: Path, _listener: socket.socket, _heart: Heart) -> None:
    """The first two live, until they are killed; no other starts."""
    if len(list(folder.glob("started-*"))) >= 2:
        (folder / f"failed-{os.getpid()}").touch()
        os._exit(STARTUP_FAILURE)
    (folder / f"started-{os.getpid()}").touch()
    while True:
        signal.pause()


class Noted(Supervisor):
    """Notes when it starts a process. The one that lives counts as one that has lived long."""

    folder: Path

    def _start(self) -> None:
        super()._start()
        (self.folder / f"start-{time.monotonic()}").touch()

    def _end_frozen(self) -> None:
        super()._end_frozen()
        with suppress(FileNotFoundError):
            living = (self.folder / "living").read_text()
            for process, worker in self._processes.items():
                if str(process.pid) == living:
                    self._processes[process] = worker._replace(started=-math.inf)


class Short(Supervisor):
    """One that once finds no memory for another process."""

    starts = 0

    def _start(self) -> None:
        self.starts += 1
        if self.starts == 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        super()._start()


def pause(folder: Path, _listener: socket.socket, _heart: Heart) -> None:
    """Lives until it is killed."""
    (folder / f"started-{os.getpid()}").touch()
    while True:
        signal.pause()


def freeze(folder: Path, _listener: socket.socket, heart: Heart) -> None:
    """Lives until it is killed; stands still once the folder has a file `freeze`, which it takes away."""
    (folder / f"started-{os.getpid()}").touch()
    while True:
        heart.beat()
        time.sleep(0.05)
        with suppress(FileNotFoundError):
            (folder / "freeze").rename(folder / f"frozen-{os.getpid()}")
            stand_still()


def freeze_at_start(folder: Path, listener: socket.socket, heart: Heart) -> None:
    """One stands still before it has beaten; all others live until they are killed."""
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        freeze(folder, listener, heart)
    (folder / f"frozen-{os.getpid()}").touch()
    (folder / f"started-{os.getpid()}").touch()
    stand_still()


LOOKS_OFTEN = """
import sys
from service import heartbeat
from service.cli import main
from service.heartbeat import Pulse

heartbeat.LOOK_EVERY_S, heartbeat.FROZEN_LOOKS, look = 2, 4, Pulse.look

def told(pulse):
    before, missed = pulse.started, look(pulse)
    if pulse.started and not before:
        print("a heart beats", file=sys.stderr, flush=True)
    return missed

Pulse.look = told
main()
"""


def stand_still() -> None:
    time.sleep(600)


def supervise(folder: str, work: str = "live_or_die") -> None:
    """Two of them, in a process of their own."""
    supervisor._SOON_S = 3.0 if work == "pause" else 60.0  # also where other work makes a start slow
    heartbeat.LOOK_EVERY_S = 0.5
    supervisor._FROZEN_START_LOOKS = 10 if work == "freeze_at_start" else sys.maxsize
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kind = {"pause": Short, "live_or_die": Noted}.get(work, Supervisor)
        Noted.folder = Path(folder)
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
            time.sleep(1)  # until that is known; a death among others is none of its own
            living = tmp_path / "living"
            victim = int(living.read_text())
            living.unlink()
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(tmp_path, "start-*", 7)
            started = max(float(path.name.partition("-")[2]) for path in tmp_path.glob("start-*"))
            assert started - killed < 5  # it did not wait for that one's turn
            wait_for(tmp_path, "living", 1)
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

        def wait_until_told(line: str) -> None:
            deadline = time.monotonic() + 60
            while not told(line):
                assert time.monotonic() < deadline, line
                time.sleep(0.05)

        for _ in range(4):
            assert httpx.post(f"{server.url}/embed", content=geotiff()).status_code == 200
        wait_until_told('landmoe_request_duration_seconds_count{route="/embed"} 4.0')  # after the answer
        first = workers()
        [folder] = {Path(process.environ()[MULTIPROCESS_DIR]) for process in first}
        for victim in first:
            victim.kill()
        wait_until_told("landmoe_worker_deaths_total 2.0")
        wait_until_told("landmoe_engine_workers 2.0")  # those that came after them
        assert told('landmoe_requests_total{outcome="ok",route="/embed"} 4.0')
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


@pytest.mark.slow
@pytest.mark.parametrize("work", ["freeze", "freeze_at_start"])
def test_one_that_stands_still_says_where_and_is_replaced(tmp_path: Path, work: str) -> None:
    code = f"from tests.service.test_supervisor import supervise; supervise({str(tmp_path)!r}, {work!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MULTIPROCESS_DIR: str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(tmp_path, "started-*", 2)
            (tmp_path / work).touch()  # the one of them does it by itself
            wait_for(tmp_path, "started-*", 3)
            [frozen] = (int(path.name.partition("-")[2]) for path in tmp_path.glob("frozen-*"))
            assert not psutil.pid_exists(frozen)
            assert len(psutil.Process(process.pid).children()) >= 2
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "in stand_still" in errors


@pytest.mark.server
def test_a_stopped_worker_of_a_server_is_replaced_and_the_other_stays() -> None:
    options = ("serve", "--port", "0", "--workers", "2")
    with ServerProcess(*options, command=(sys.executable, "-c", LOOKS_OFTEN)) as server:
        parent = psutil.Process(server.process.pid)

        def workers() -> set[int]:
            return {child.pid for child in parent.children() if "spawn_main" in " ".join(child.cmdline())}

        for _ in range(2):  # before the first one of each, nobody misses any
            server.wait_for("a heart beats")
        serving = workers()
        stopped = min(serving)
        os.kill(stopped, signal.SIGSTOP)
        assert server.wait_for("worker frozen")["pid"] == stopped
        assert server.wait_for("worker died")["pid"] == stopped
        assert httpx.post(f"{server.url}/embed", content=geotiff(), timeout=60).status_code == 200
        assert max(serving) in workers()
        assert server.stop() == 0
