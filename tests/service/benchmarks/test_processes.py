from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import psutil
import pytest

from service.benchmarks import processes, scene_load
from service.benchmarks.load import LoadError


def _cpus_of(process: psutil.Process) -> set[frozenset[int]]:
    """Of every thread; those that end meanwhile have none."""
    found = set()
    for thread in process.threads():
        try:
            found.add(frozenset(os.sched_getaffinity(thread.id)))
        except ProcessLookupError:
            continue
    return found


@pytest.mark.server
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs"
)
def test_server_and_client_are_kept_apart_and_let_go() -> None:
    cpus = frozenset(os.sched_getaffinity(0))
    with processes.empty() as server:
        with processes.apart(server) as possible:
            assert possible
            mine = frozenset(os.sched_getaffinity(0))
            [theirs] = _cpus_of(server.process)
            assert len(theirs) == 1
            assert mine == cpus - theirs
        assert _cpus_of(server.process) == {cpus}
        assert frozenset(os.sched_getaffinity(0)) == cpus
        process = server.process
    assert not process.is_running()


@pytest.mark.server
def test_the_most_memory_is_seen_though_it_is_given_back() -> None:
    with processes.empty() as server:
        me = processes.Server(server.url, psutil.Process())
        before = me.rss_mb()
        assert before > server.rss_mb()  # its child counts too
        with scene_load.PeakMemory(me) as peak:
            block = bytearray(os.urandom(1000) * 100_000)
            end = time.monotonic() + 30
            while peak.mb < before + 90 and time.monotonic() < end:
                time.sleep(0.01)
            del block
        assert peak.mb >= before + 90


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="exit status"), processes.plain(tmp_path / "none.onnx"):
        pass


@pytest.mark.server
def test_a_server_that_stands_still_goes_on_afterwards() -> None:
    with processes.empty() as server:
        with processes.still([server]), pytest.raises(httpx.TimeoutException):
            httpx.get(server.url + "/readyz", timeout=0.3)
        assert httpx.get(server.url + "/readyz", timeout=10).status_code == 200
