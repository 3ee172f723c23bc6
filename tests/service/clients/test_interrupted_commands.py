"""A command that is interrupted and called again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.clients.errors import InputError
from service.clients.kept_answers import KeptAnswers
from tests.rasters import dn_pixels, geotiff
from tests.service import deliveries
from tests.service.server_process import LANDMOE, ServerProcess

pytestmark = pytest.mark.server
TILES = 70  # three requests


class Between(ThreadingHTTPServer):
    """Passes requests on to a service; `answers` of those with tiles, then it refuses or says nothing."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.answers, self.asked = url, 1_000, 0
        self.refuses = True
        self.reached = threading.Event()
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: Between

    def do_GET(self) -> None:
        self._answer(httpx.get(self.server.behind + self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.asked += 1
            passed = self.server.asked <= self.server.answers
        if not passed and not self.server.refuses:
            self.server.reached.set()
            self.server.release.wait(60)
            return
        headers = {"Content-Type": self.headers["Content-Type"]}
        answer = httpx.post(self.server.behind + self.path, content=body, headers=headers, timeout=60)
        self._answer(answer if passed else httpx.Response(401, content=b"{}"))

    def _answer(self, answer: httpx.Response) -> None:
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("content-type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests count."""


@pytest.fixture(scope="module")
def behind() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture
def service(behind: ServerProcess) -> Iterator[Between]:
    with Between(behind.url) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.release.set()
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    for number in range(TILES):
        (folder / f"{number:02}.tif").write_bytes(geotiff(dn_pixels(seed=number)))
    return folder


def call(folder: Path, output: Path, service: Between, *options: str) -> Result:
    command = ("embed", str(folder), "-o", str(output), "--url", service.url, "--concurrency", "1")
    return CliRunner().invoke(app, [*command, *options])


def kept_beside(output: Path) -> list[Path]:
    return [path for path in output.parent.iterdir() if path != output]


@pytest.mark.parametrize("suffix", ["npy", "parquet", "json"])
def test_the_same_command_asks_for_the_rest_only(
    service: Between, folder: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    service.answers = 2
    done = call(folder, output, service)
    assert done.exit_code == 1
    assert (
        f"64 tiles done, kept in {tmp_path}/.out.{suffix}.unfinished; the same command goes on" in done.stderr
    )
    assert not output.exists()

    service.answers, service.asked = 1_000, 0
    done = call(folder, output, service)
    assert done.exit_code == 0, done.stderr
    assert service.asked == 1
    assert f"{TILES} tiles; wrote" in done.stderr
    assert kept_beside(output) == []

    whole = tmp_path / "elsewhere" / output.name
    whole.parent.mkdir()
    assert call(folder, whole, service).exit_code == 0
    if suffix == "npy":
        assert np.array_equal(np.load(output), np.load(whole))


@pytest.mark.parametrize("option", ["pooling=max", "poling=cls", "stride=20"])
def test_an_option_that_cannot_be_used_is_said_once(
    service: Between, folder: Path, tmp_path: Path, option: str
) -> None:
    """And before the other files of an archive are sent."""
    done = call(folder, tmp_path / "out.parquet", service, "-p", option)
    assert (done.exit_code, service.asked) == (1, 1)
    [line] = done.stderr.splitlines()
    assert option.partition("=")[0] in line
    assert list(tmp_path.iterdir()) == []


def test_what_has_changed_is_asked_for_again(service: Between, folder: Path, tmp_path: Path) -> None:
    """Another option, another file under the same name, or `--no-cache`."""
    output = tmp_path / "out.npy"
    for changed in ("--pooling=cls", "file", "--no-cache"):
        service.answers, service.asked = 2, 0
        assert call(folder, output, service).exit_code == 1
        service.answers, service.asked = 1_000, 0
        if changed == "file":
            os.utime(folder / "40.tif", (0, 0))
        done = call(folder, output, service, *(() if changed == "file" else (changed,)))
        assert done.exit_code == 0, done.stderr
        assert service.asked == {"file": 2}.get(changed, 3)
        assert np.load(output).shape == (TILES, 144)
        assert kept_beside(output) == []


def test_what_is_computed_afresh_goes_on_if_it_need_not_be_afresh_again(
    service: Between, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npy"
    service.answers = 2
    told = call(folder, output, service, "--no-cache").stderr
    assert "the same command without --no-cache goes on from there" in told
    service.answers, service.asked = 1_000, 0
    assert call(folder, output, service).exit_code == 0
    assert service.asked == 1


def test_an_output_may_lie_in_the_folder_of_a_delivery(service: Between, tmp_path: Path) -> None:
    """What is kept there is no file of the delivery: it does not make of it another one."""
    parts = deliveries.parts()
    folders = [deliveries.write(tmp_path / name, parts) for name in ("a", "b")]
    output = folders[0] / "out.npy"
    command = ["embed", *map(str, folders), "-o", str(output), "--url", service.url, "--concurrency", "1"]
    service.answers = 1
    assert "1 tile done, kept in" in CliRunner().invoke(app, command).stderr
    service.answers, service.asked = 1_000, 0
    assert CliRunner().invoke(app, command).exit_code == 0
    assert service.asked == 1


def test_an_interrupt_says_how_to_go_on(service: Between, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    service.answers, service.refuses = 1, False
    command = [
        str(LANDMOE),
        "embed",
        str(folder),
        "-o",
        str(output),
        "--url",
        service.url,
        "--concurrency",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert service.reached.wait(60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"32 tiles done, kept in {tmp_path}/.out.npy.unfinished; the same command" in told
    assert len(told.splitlines()) == 1
    service.release.set()
    service.answers, service.asked = 1_000, 0
    assert call(folder, output, service).exit_code == 0
    assert service.asked == 2


def test_a_command_that_is_killed_while_it_writes_leaves_nothing_for_good(
    service: Between, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npy"
    command = ["embed", str(folder), "-o", str(output), "--url", service.url]
    killed = (
        "import os, sys; from pathlib import Path; from service.cli import app\n"
        "Path.replace = lambda self, to: os.kill(os.getpid(), 9) if to.suffix else os.replace(self, to)\n"
        "app(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", killed, *command], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert kept_beside(output) == [tmp_path / ".out.npy.unfinished"]
    service.asked = 0
    assert CliRunner().invoke(app, command).exit_code == 0
    assert service.asked == 0
    assert kept_beside(output) == []


def test_what_a_full_disk_did_not_take_is_not_called_kept(
    service: Between, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    service.answers = 2
    done = call(folder, tmp_path / "out.npy", service)
    assert done.exit_code == 1
    assert "kept in" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    with KeptAnswers(output) as first:
        first["a"] = b"body"
        with pytest.raises(InputError, match="another run is writing it"):
            KeptAnswers(output)
        assert first["a"] == b"body"
    with KeptAnswers(output) as second:
        assert second["a"] == b"body"
        second.discard()
    with KeptAnswers(output) as third:
        assert "a" not in third
    assert kept_beside(output) == []


def test_no_folder_where_none_can_be(tmp_path: Path) -> None:
    """Standard output and devices have no neighbours; a file may stand in the way."""
    (tmp_path / ".out.npy.unfinished").write_text("mine")
    for output in (Path("-"), Path("/dev/null"), tmp_path / "out.npy"):
        with KeptAnswers(output) as kept:
            assert kept.folder is None
            kept["a"] = b"body"
            assert kept["a"] == b"body"
            assert "b" not in kept
    assert (tmp_path / ".out.npy.unfinished").read_text() == "mine"


def test_answers_outlive_a_folder_that_takes_no_more(tmp_path: Path) -> None:
    with KeptAnswers(tmp_path / "out.npy") as kept:
        assert kept.folder is not None
        (kept.folder / "a.part").mkdir()  # nothing can be written there, as on a full disk
        kept["a"] = b"body"
        assert kept["a"] == b"body"
