"""Metrics of several workers: what the dead have counted stays; their files and left folders go."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry import metrics, worker_files

HOLDER = """
import sys, pathlib
from service.telemetry import worker_files
with worker_files.folder(pathlib.Path(sys.argv[1])) as made:
    print(made, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(worker_files.MULTIPROCESS_DIR, str(tmp_path))
    return tmp_path


def counted(where: Path, pid: int, requests: int, outcome: str = "ok") -> None:
    """What a worker leaves."""
    files = {
        "counter": {mmap_key("requests", "requests_total", ["outcome"], [outcome], "help"): requests},
        "histogram": {
            mmap_key("seconds", "seconds_sum", [], [], "help"): requests / 8,
            **{
                mmap_key("seconds", "seconds_bucket", ["le"], [bound], "help"): requests
                for bound in ("0.5", "1.0", "+Inf")
            },
        },
        "gauge_livesum": {mmap_key("flying", "flying", [], [], "help"): 1},
    }
    for kind, values in files.items():
        file = MmapedDict(str(where / f"{kind}_{pid}.db"))  # type: ignore[no-untyped-call]
        for key, value in values.items():
            file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        file.close()  # type: ignore[no-untyped-call]


def told(where: Path) -> set[str]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(where))  # type: ignore[no-untyped-call]
    return {line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"}


def test_what_the_dead_have_counted_stays_in_one_file_of_each_kind(where: Path) -> None:
    counted(where, 1, 5)
    for pid in range(2, 40):
        counted(where, pid, pid, "ok" if pid % 2 else f"failed-{pid}")
    before = {line for line in told(where) if "flying" not in line}
    for pid in range(2, 40):
        worker_files.died(pid)
    assert told(where) == before | {"flying 1.0", "landmoe_worker_deaths_total 38.0"}
    assert 'requests_total{outcome="ok"} 404.0' in before
    assert sorted(file.name for file in where.glob("*.db")) == [
        "counter_1.db",
        "counter_dead.db",
        "gauge_livesum_1.db",
        "histogram_1.db",
        "histogram_dead.db",
    ]


def test_a_worker_that_died_before_it_had_counted_anything(where: Path) -> None:
    counted(where, 1, 5)
    (where / "counter_2.db").touch()
    for pid in (2, 3):  # of the second there is nothing
        worker_files.died(pid)
    assert "requests_total" in str(told(where))


def test_where_there_is_no_room_nothing_is_lost(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(where, 1, 5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    before = {line for line in told(where) if "flying" not in line}
    with pytest.raises(OSError, match="No space"):
        worker_files.died(1)
    assert told(where) == before


def test_nobody_reads_while_files_are_put_together(where: Path) -> None:
    counted(where, 1, 5)
    done = threading.Event()

    def put_together() -> None:
        worker_files.died(1)
        done.set()

    with worker_files.reading():
        thread = threading.Thread(target=put_together)
        thread.start()
        assert not done.wait(0.2)
        assert "requests_total" in metrics.exposition().decode()  # who reads does not wait for who reads
    assert done.wait(10)
    thread.join()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another service, in a folder of its own below the same one."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_leftovers_of_a_killed_service_are_cleared_away(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert holder.stdout is not None
    other = Path(holder.stdout.readline().strip())
    (other / "counter_1.db").touch()
    (tmp_path / "landmoe-workers-file").touch()
    (tmp_path / "landmoe-workers-link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    with worker_files.folder(tmp_path) as own:
        assert other.is_dir()  # it runs
        assert own.parent == tmp_path
    assert not own.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert other.is_dir()
    with worker_files.folder(tmp_path) as own:
        assert {path.name for path in tmp_path.iterdir()} == {
            own.name,
            "kept",
            "landmoe-workers-file",
            "landmoe-workers-link",
        }


def test_a_worker_holds_the_folder_of_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    left = tmp_path / "landmoe-workers-x"
    left.mkdir()
    code = "from service.telemetry import worker_files; worker_files.hold(); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), worker_files.MULTIPROCESS_DIR: str(left)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        with worker_files.folder(tmp_path):
            assert left.is_dir()
        worker.kill()
    with worker_files.folder(tmp_path):
        assert not left.exists()


def test_shared_memory_that_others_have_filled_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker would be ended by the kernel at its start, for ever."""
    memory, temporary = tmp_path / "memory", tmp_path / "temporary"
    for folder in (memory, temporary):
        folder.mkdir()
    left = memory / f"{worker_files._PREFIX}left"
    free = {"others": 1000}
    monkeypatch.setattr(worker_files, "_SHARED_MEMORY", memory)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage(1000 if left.exists() else free.get("others", 1 << 30))
    )
    with worker_files.folder() as made:
        assert made.parent == temporary
    free.clear()
    left.mkdir()  # of a service that was killed
    with worker_files.folder() as made:
        assert made.parent == memory


def test_a_folder_that_another_start_clears_away_as_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = worker_files.tempfile.mkdtemp, []

    def cleared_away_once(**how: Any) -> str:
        made.append(make(**how))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return str(made[-1])

    monkeypatch.setattr(worker_files.tempfile, "mkdtemp", cleared_away_once)
    with worker_files.folder(tmp_path) as own:
        assert own == Path(made[1])
        assert own.is_dir()
