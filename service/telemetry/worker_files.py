"""The folder in which several worker processes keep their metrics, in mapped files of prometheus_client.

Who reads them adds up what all workers have counted, those that have died, too. The files of the dead are put
together, so that a worker that dies again and again does not fill the memory. Whoever uses the folder holds a
lock on it; one that nobody holds is left of a service that was killed, and the next one clears it away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import mark_process_dead

log = structlog.get_logger()

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when it is imported

# Another one than that of versions that did not lock their folders.
_PREFIX = "landmoe-workers-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
_ROOM_BYTES = 16 << 20  # a worker takes 100 kB at first
_LOCK = "reading"
# Counted by the supervisor, with the dead; each worker has the same counter at 0.
DEATHS = ("landmoe_worker_deaths", "Worker processes that died and were replaced")
_ENTRY_BYTES = 40  # of a value in such a file, beside its key: at most


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for the workers that are started meanwhile; leftovers of others are cleared away.

    Args:
        parent: where it is made; in memory if None, if there is such a folder and room in it. Where a disk is
            full, and uploads may fill the one with the temporary folder, writing to a mapped file ends the
            process.

    Raises:
        OSError: no folder can be made.
    """
    if parent is None:
        parent = _SHARED_MEMORY if _memory_has_room() else Path(tempfile.gettempdir())
    _clear(parent)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            descriptor = os.open(made, os.O_RDONLY)
        except FileNotFoundError:  # another start took it for a leftover
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if made.exists():  # else another start did so just before the lock
            break
        os.close(descriptor)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _memory_has_room() -> bool:
    if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return False
    _clear(_SHARED_MEMORY)  # which may be what fills it
    return shutil.disk_usage(_SHARED_MEMORY).free >= _ROOM_BYTES


def renew() -> None:
    """Makes the folder again if it was removed, as logind removes shared memory with its user's last session.

    No worker could start without it. What those that run have counted, and still count, is not seen any more.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        Path(os.environ[MULTIPROCESS_DIR]).mkdir(mode=0o700)
        log.warning(
            "the folder of metrics was removed", hint="restart the service, its metrics are not whole"
        )


def hold() -> None:
    """Holds the folder to the end of this process: a worker may outlive a killed supervisor for a moment."""
    with suppress(OSError):
        fcntl.flock(os.open(os.environ[MULTIPROCESS_DIR], os.O_RDONLY), fcntl.LOCK_SH)


@contextmanager
def reading(*, alone: bool = False) -> Iterator[None]:
    """Files of the dead are not put together meanwhile: they would be counted twice, or not at all."""
    renew()
    with (Path(os.environ[MULTIPROCESS_DIR]) / _LOCK).open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def died(pid: int | None) -> None:
    """Takes leave of a worker: what it was goes, what it has counted stays, with that of others.

    Raises:
        OSError: there is no room; the counts stay where they are.
    """
    where = Path(os.environ[MULTIPROCESS_DIR])
    with reading(alone=True):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # untyped in prometheus_client
        name, text = DEATHS
        death: str = mmap_key(name, f"{name}_total", [], [], text)
        _add(where / f"counter_{pid}.db", where / "counter_dead.db", Counter({death: 1.0}))
        if (own := where / f"histogram_{pid}.db").exists():
            _add(own, where / "histogram_dead.db", Counter())


def _add(own: Path, dead: Path, total: Counter[str]) -> None:
    for file in (dead, own):
        if file.exists() and file.stat().st_size:  # it may have died before it had written anything
            for key, value, *_ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
                total[key] += value
    unfinished = dead.with_suffix(".unfinished")
    # Room is taken before it is mapped: where there is none, that is an error and not the end of the process.
    unfinished.write_bytes(bytes(8 + sum(len(key.encode()) + _ENTRY_BYTES for key in total)))
    values: Any = MmapedDict(unfinished)  # type: ignore[no-untyped-call]
    for key, value in total.items():
        values.write_value(key, value, 0.0)
    values.close()
    unfinished.replace(dead)
    own.unlink(missing_ok=True)


def _clear(parent: Path) -> None:
    """Removes folders that nobody holds."""
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, in use, or gone meanwhile
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(descriptor)
