"""What is told to stop, or killed, under load: what was taken is answered, and nothing is left behind.

Real server processes with the real engine. Each test prints its account: sent, answered, refused, lost.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from contextlib import ExitStack

import psutil
import pytest

from service.benchmarks.load import Account, closed_loop, for_seconds, shots
from tests.service.load_accounts import FAULTY, NO_CACHE, files, metric, singles, told
from tests.service.server_process import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_that_was_taken_is_lost_when_told_to_stop(workers: str) -> None:
    options = {"LANDMOE_SHUTDOWN_DELAY_S": "0.3"}
    with ServerProcess("--workers", workers, **options) as server:
        stopped: list[int] = []

        async def main() -> Account:
            running = asyncio.create_task(
                closed_loop(
                    server.url, singles(), connections=8, until=lambda a: bool(stopped) or a.unsent > 8
                )
            )
            await asyncio.sleep(1)
            stopped.append(await asyncio.to_thread(server.stop))
            return await running

        account = asyncio.run(main())
    served = [line for line in server.lines if line["event"] == "request" and line.get("path") == "/embed"]
    outcomes = {str(line["outcome"]) for line in served}
    told(f"SIGTERM with {workers} workers", account, served=len(served), exit_status=stopped[0])
    assert stopped == [0]
    assert outcomes == {"ok"}
    # A connection that nobody has taken yet is closed unheard; whoever was heard was answered.
    assert account.answered == len(served)
    assert account.sent == account.answered + account.lost
    assert account.lost <= 1
    assert account.answered >= 8


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_that_is_closed_loses_no_request(workers: str) -> None:
    """SIGHUP comes twice then: from the shell, and from the kernel when the shell has gone."""
    [large] = shots("/embed", files(), tiles=64, headers=NO_CACHE)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored, as by nohup, the service ignores it, too
    with ExitStack() as stack:
        try:
            server = stack.enter_context(ServerProcess("--workers", workers))
        finally:
            signal.signal(signal.SIGHUP, before)

        async def main() -> tuple[Account, int]:
            load_ = asyncio.create_task(
                closed_loop(server.url, [large], connections=4, until=lambda a: a.sent >= 4)
            )
            await asyncio.sleep(0.3)
            for _ in range(2):
                server.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.1)
            status = await asyncio.to_thread(server.process.wait, 30)
            return await load_, status

        account, status = asyncio.run(main())
    told(f"SIGHUP with {workers} workers", account, exit_status=status)
    assert status == 0
    assert account.answered == account.sent == 4


def test_a_second_signal_stops_at_once() -> None:
    [large] = shots("/embed", files(), tiles=64, headers=NO_CACHE)
    for workers in ("1", "2"):
        with ServerProcess("--workers", workers) as server:

            async def main(server: ServerProcess = server) -> Account:
                load_ = asyncio.create_task(
                    closed_loop(server.url, [large], connections=16, until=lambda a: a.sent >= 16)
                )
                await asyncio.sleep(0.7)
                server.process.terminate()
                await asyncio.sleep(0.7)
                assert server.process.poll() is None  # still at work
                server.process.terminate()
                status = await asyncio.to_thread(server.process.wait, 10)
                assert status != 0
                return await load_

            account = asyncio.run(main())
        assert account.lost > 0  # it did not go on until all were answered


def test_what_cannot_be_finished_in_time_is_answered_and_the_process_ends() -> None:
    """The engine hangs; the grace is over long before it would be given up."""
    with ServerProcess(command=FAULTY, LANDMOE_SHUTDOWN_GRACE_S="1") as server:
        server.process.send_signal(signal.SIGUSR2)

        async def main() -> tuple[Account, int]:
            waiting = asyncio.create_task(
                closed_loop(server.url, singles(), connections=3, until=lambda a: a.sent >= 3)
            )
            # They, and the one that asks.
            while metric(server, "landmoe_requests_in_flight") < 4:  # noqa: ASYNC110  # nothing to wait on
                await asyncio.sleep(0.01)
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
            return [p for p in supervisor.children() if "spawn_main" in " ".join(p.cmdline())]

        first = workers()
        assert len(first) == 2
        threading.Timer(0.5, first[0].kill).start()
        account = asyncio.run(closed_loop(server.url, singles(), connections=4, until=for_seconds(3)))
        while len(workers()) < 2:
            time.sleep(0.05)
        again = asyncio.run(closed_loop(server.url, singles(), connections=4, until=for_seconds(1)))
        told("worker process killed", account, lost_with_the_process=account.lost, afterwards=again.summary())
        assert account.failed == account.refused == 0
        assert account.lost <= 4  # what it was working on, one request of each connection
        assert again.answered == again.sent > 0
        orphans = workers()
        server.process.kill()
        _, alive = psutil.wait_procs(orphans, timeout=60)
        assert not alive
