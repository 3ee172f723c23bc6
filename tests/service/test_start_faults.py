"""What keeps `landmoe serve` from starting: it ends, and says why."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.service.server_process import LANDMOE, START_TIMEOUT_S, run

pytestmark = pytest.mark.server

# Both bind the port while nobody listens, as two that start at the same moment do.
OVERTAKEN = """
from service import server
from service.settings import Settings

other = server.bind("127.0.0.1", 0)
ours = server.bind("127.0.0.1", other.getsockname()[1])
other.listen()
try:
    server.serve(Settings(workers=WORKERS), ours)
except server.StartError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_during_the_start_ends_it(workers: str) -> None:
    code = f"if __name__ == '__main__':\n    exec({OVERTAKEN.replace('WORKERS', workers)!r})"
    done = run("-c", code, program=sys.executable)
    assert done.returncode == 1, done.stderr
    assert "the port is in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_port_of_metrics_is_not_the_services(workers: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = run("serve", "--port", port, "--workers", workers, LANDMOE_METRICS_PORT=port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "LANDMOE_METRICS_PORT" in done.stderr


def test_metrics_of_several_workers_for_which_there_is_no_folder_are_said_in_one_line(
    tmp_path: Path,
) -> None:
    """As in a container whose root is read-only, with a spool and without /tmp."""
    code = (
        "import tempfile; from pathlib import Path; from service.telemetry import worker_files; "
        "worker_files._SHARED_MEMORY = Path('/nowhere'); tempfile.tempdir = '/nowhere'; "
        "from service.cli import main; main()"
    )
    options = ("serve", "--port", "0", "--workers", "2")
    done = run("-c", code, *options, program=sys.executable, LANDMOE_SPOOL_DIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "metrics of several workers" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_spool_that_cannot_be_used_is_said_in_one_line(tmp_path: Path, workers: str) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run("serve", "--port", "0", "--workers", workers, LANDMOE_SPOOL_DIR=str(file / "spool"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"LANDMOE_SPOOL_DIR {file / 'spool'}" in done.stderr


@pytest.mark.parametrize("proxy", ["socks5://user:secret@127.0.0.1:1", "foo://127.0.0.1:1"])
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("embed", "http://a.org/a.tif", "-o", "-")])
def test_a_proxy_that_cannot_be_used_is_said_in_one_line(command: tuple[str, ...], proxy: str) -> None:
    done = run(*command, LANDMOE_FETCH_HOSTS="a.org", ALL_PROXY=proxy)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "ALL_PROXY" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_told_to_stop_while_it_starts_it_ends_at_once(tmp_path: Path, workers: str) -> None:
    """With a handler, without which the first process of a container would not get the signal."""
    keys = tmp_path / "keys"
    os.mkfifo(keys)
    with subprocess.Popen(
        [LANDMOE, "serve", "--port", "0", "--workers", workers],
        env={**os.environ, "LANDMOE_API_KEYS_FILE": str(keys)},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while True:  # until it reads the keys, of which none will come
                try:
                    writer = os.open(keys, os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError:
                    assert time.monotonic() < until
                    time.sleep(0.02)
            process.terminate()
            assert process.wait(10) == 0
            os.close(writer)
        finally:
            process.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_without_standard_files(workers: str) -> None:
    """As a script starts it that closes them; nobody hears why it would not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f'exec "$0" serve --port {port} --workers {workers} <&- >&- 2>&-'
    with subprocess.Popen(["/bin/sh", "-c", command, LANDMOE]) as process:
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while True:
                assert process.poll() is None
                assert time.monotonic() < until
                with suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                        break
                time.sleep(0.05)
            assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
