"""What is told to stop, or killed, under load: what was taken is answered, and nothing is left behind.

Real server processes with the real engine. Each test prints its account: sent, answered, refused, lost.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from service.benchmarks.load import Account, closed_loop, shots
from tests.service.load_accounts import FAULTY, NO_CACHE, Going, files, metric, singles, told
from tests.service.server_process import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """While this file is there, FAULTY computes nothing if it is told its name."""
    path = tmp_path / "held"
    path.touch()
    return path


async def under_way(server: ServerProcess, requests: int) -> None:
    """Waits until a server has taken so many requests; the one that asks is another."""
    async with asyncio.timeout(60):
        while metric(server, "landmoe_requests_in_flight") <= requests:  # noqa: ASYNC110  # nothing to wait on
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_that_was_taken_is_lost_when_told_to_stop(workers: str) -> None:
    options = {"LANDMOE_SHUTDOWN_DELAY_S": "0.3"}
    with ServerProcess("--workers", workers, **options) as server:

        async def main() -> tuple[Account, int]:
            going = Going()
            running = asyncio.create_task(
                closed_loop(server.url, singles(), connections=8, until=lambda a: going(a) or a.unsent > 8)
            )
            await going.answers(8)
            status = await asyncio.to_thread(server.stop)
            going.ended = True
            return await running, status

        account, status = asyncio.run(main())
    served = [line for line in server.lines if line["event"] == "request" and line.get("path") == "/embed"]
    outcomes = {str(line["outcome"]) for line in served}
    told(f"SIGTERM with {workers} workers", account, served=len(served), exit_status=status)
    assert status == 0
    assert outcomes == {"ok"}
    # A connection that nobody has taken yet is closed unheard; whoever was heard was answered.
    assert account.answered == len(served)
    assert account.sent == account.answered + account.lost
    assert account.lost <= 1
    assert account.answered >= 8


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_that_is_closed_loses_no_request(workers: str, held: Path) -> None:
    """SIGHUP comes twice then: from the shell, and from the kernel when the shell has gone."""
    [large] = shots("/embed", files(), tiles=64, headers=NO_CACHE)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored, as by nohup, the service ignores it, too
    with ExitStack() as stack:
        try:
            options = {"LANDMOE_WORKERS": workers, "HELD_WHILE": str(held)}
            server = stack.enter_context(ServerProcess(command=FAULTY, **options))
        finally:
            signal.signal(signal.SIGHUP, before)

        async def main() -> tuple[Account, int]:
            load_ = asyncio.create_task(
                closed_loop(server.url, [large], connections=4, until=lambda a: a.sent >= 4)
            )
            await under_way(server, 4)
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for, "stopping")
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(held.unlink)
            status = await asyncio.to_thread(server.process.wait, 60)
            return await load_, status

        account, status = asyncio.run(main())
    told(f"SIGHUP with {workers} workers", account, exit_status=status)
    assert status == 0
    assert account.answered == account.sent == 4


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_stops_at_once(workers: str, held: Path) -> None:
    [large] = shots("/embed", files(), tiles=64, headers=NO_CACHE)
    options = {"LANDMOE_WORKERS": workers, "HELD_WHILE": str(held)}
    with ServerProcess(command=FAULTY, **options) as server:

        async def main() -> Account:
            load_ = asyncio.create_task(
                closed_loop(server.url, [large], connections=4, until=lambda a: a.sent >= 4)
            )
            await under_way(server, 4)
            server.process.terminate()
            await asyncio.to_thread(server.wait_for, "stopping")
            assert server.process.poll() is None  # still at work
            server.process.terminate()
            status = await asyncio.to_thread(
                server.process.wait, 10
            )  # long before its time to finish is over
            assert status != 0
            return await load_

        account = asyncio.run(main())
    assert account.lost == 4  # it did not go on until all were answered


def test_what_cannot_be_finished_in_time_is_answered_and_the_process_ends() -> None:
    """The engine hangs; the grace is over long before it would be given up."""
    with ServerProcess(command=FAULTY, LANDMOE_SHUTDOWN_GRACE_S="1") as server:
        server.process.send_signal(signal.SIGUSR2)

        async def main() -> tuple[Account, int]:
            waiting = asyncio.create_task(
                closed_loop(server.url, singles(), connections=3, until=lambda a: a.sent >= 3)
            )
            await under_way(server, 3)
            status = await asyncio.to_thread(server.stop)
            return await waiting, status

        account, status = asyncio.run(main())
        told("grace over", account, exit_status=status)
        assert account.statuses == {503: 3}
        assert account.lost == 0
        assert status == 1  # not in order


def test_a_thread_that_nobody_waits_for_does_not_hold_up_the_end() -> None:
    """As one of the event loop's own that asks a name server which does not answer for Redis' address."""
    patched = (
        "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
        "from service.cli import main; main()"
    )
    command = (sys.executable, "-c", patched, "serve", "--port", "0")
    with ServerProcess(command=command, LANDMOE_SHUTDOWN_GRACE_S="60") as server:
        assert server.stop() == 0  # within 30 s


def test_a_killed_process_is_replaced_and_a_killed_supervisor_leaves_none_behind() -> None:
    with ServerProcess("--workers", "2") as server:
        supervisor = psutil.Process(server.process.pid)

        def workers() -> list[psutil.Process]:
            found = []
            for process in supervisor.children():
                with suppress(psutil.NoSuchProcess):  # it has ended since
                    if "spawn_main" in " ".join(process.cmdline()):
                        found.append(process)
            return found

        first = workers()
        assert len(first) == 2

        async def main() -> Account:
            going = Going()
            running = asyncio.create_task(closed_loop(server.url, singles(), connections=4, until=going))
            await going.answers(8)
            first[0].kill()
            await asyncio.to_thread(server.wait_for, "worker died")
            await going.answers(8)
            going.ended = True
            return await running

        account = asyncio.run(main())
        while len(workers()) < 2:
            time.sleep(0.05)
        again = asyncio.run(closed_loop(server.url, singles(), connections=4, until=lambda a: a.sent >= 20))
        told("worker process killed", account, lost_with_the_process=account.lost, afterwards=again.summary())
        assert account.failed == account.refused == 0
        assert account.lost <= 4  # what it was working on, one request of each connection
        assert again.answered == again.sent > 0
        orphans = workers()
        server.process.kill()
        _, alive = psutil.wait_procs(orphans, timeout=60)
        assert not alive
