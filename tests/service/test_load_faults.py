"""What happens to requests under load when an engine worker dies, clients leave, or too many come.

Real server processes with the real engine. Each test prints its account: sent, answered, refused, lost.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from service.batching import cpu
from service.benchmarks import load
from service.benchmarks.load import Account, closed_loop, for_seconds, open_loop, shots
from tests.service.load_accounts import FAULTY, NO_CACHE, Going, files, metric, singles, told
from tests.service.server_process import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.slow]

TIFF = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGUSR1, "died of SystemExit"), (signal.SIGUSR2, "given up as hung")]
)
def test_an_engine_worker_that_dies_or_hangs_costs_no_request(
    number: signal.Signals, reason: str, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    environment = {"LANDMOE_ENGINE_THREADS": "2", "LANDMOE_ENGINE_TIMEOUT_S": "5"}
    with ServerProcess(command=FAULTY, RESTART_HELD_WHILE=str(held), **environment) as server:

        def fresh() -> np.ndarray:
            params = {"format": "npy", "pooling": "tokens"}
            answer = httpx.post(
                f"{server.url}/embed", content=files()[0], params=params, headers=TIFF, timeout=60
            )
            return np.frombuffer(answer.raise_for_status().content, np.uint8)

        async def readyz(status: int) -> None:
            async with asyncio.timeout(60), httpx.AsyncClient(timeout=60) as client:
                while (await client.get(f"{server.url}/readyz")).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        async def main() -> Account:
            going = Going()
            running = asyncio.create_task(closed_loop(server.url, singles(), connections=8, until=going))
            await going.answers(8)
            server.process.send_signal(number)
            await readyz(503)
            await going.answers(8)  # the other worker goes on
            held.unlink()
            await readyz(200)
            await going.answers(8)
            going.ended = True
            return await running

        before = fresh()
        account = asyncio.run(main())
        again = fresh()
        told(f"engine worker {reason}", account)
        assert account.lost == account.refused == account.failed == 0
        assert account.answered == account.sent > 0
        assert metric(server, "landmoe_engine_restarts_total") >= 1
        assert reason in str(server.wait_for("engine failed")["reason"])
        assert np.array_equal(before, again)  # a restarted engine gives the same to the last bit
        assert server.stop() == 0


def test_what_a_client_left_behind_is_not_computed(tmp_path: Path) -> None:
    [large] = shots("/embed", files(), tiles=64, headers=NO_CACHE)
    held = tmp_path / "held"
    held.touch()
    with ServerProcess(command=FAULTY, HELD_WHILE=str(held), LANDMOE_DECODE_THREADS="2") as server:

        def send(part: bytes) -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
            connection.sendall(part)
            return connection

        waiting = [send(large.content) for _ in range(5)]
        while metric(server, "landmoe_stage_duration_seconds_count", stage="decode") < len(waiting):
            time.sleep(0.01)
        leaving_mid_upload = send(large.content[: len(large.content) // 2])
        leaving_while_decoded = send(large.content)
        for connection in (leaving_mid_upload, leaving_while_decoded, *waiting):
            connection.close()
        for _ in range(7):
            while server.wait_for("request")["path"] != "/embed":
                pass
        held.unlink()
        account = asyncio.run(closed_loop(server.url, singles(), connections=2, until=lambda a: a.sent >= 20))
        computed = metric(server, "landmoe_batch_size_tiles_sum") - account.answered
        dropped = metric(server, "landmoe_dropped_tiles_total")
        told("clients that left", account, left=7, tiles_computed=computed, tiles_dropped=dropped)
        assert 0 < computed <= 16  # the batch that had begun
        assert 5 * 64 - computed <= dropped <= 6 * 64 - computed  # the last was decoded, or left in time
        assert account.answered == account.sent
        assert account.lost == 0
        assert metric(server, "landmoe_requests_in_flight") == 1  # the one that asks
        assert server.stop() == 0


# How fast something is, is measured again: the machine may have become slower in the middle of it.
TRIES = 3


@pytest.mark.alone
def test_retry_after_proves_right(tmp_path: Path) -> None:
    """Of clients that all come at once, those sent away get in when they were told to come back."""
    held = tmp_path / "held"
    for _ in range(TRIES):
        with ServerProcess(command=FAULTY, LANDMOE_QUEUE_SIZE="64", HELD_WHILE=str(held)) as server:
            account, returns = asyncio.run(come_at_once(server.url, held))
            assert server.stop() == 0
        first = sum(attempt <= 1 for attempt in returns) / len(returns)
        told("Retry-After honoured", account, let_in_when_told=round(first, 3), most_returns=max(returns))
        assert account.answered == len(returns) == 32
        assert account.failed == account.lost == 0
        assert account.refused > 10
        if first >= 0.75:
            return
    raise AssertionError(f"only {first:.0%} found room when they were told to")


async def come_at_once(url: str, held: Path) -> tuple[Account, list[int]]:
    """What became of 32 clients, and how often each returned. Nothing is computed until 20 are refused."""
    requests = shots("/embed", files(), tiles=8, headers=NO_CACHE)
    account = Account()
    returns: list[int] = []

    async def client(n: int) -> None:
        shot, connection = requests[n % len(requests)], load.Connection(url)
        for attempt in range(20):
            answer = await connection.send(shot, account)
            assert answer is not None
            if answer.status == 200:
                returns.append(attempt)
                break
            if account.refused == 20:
                await asyncio.to_thread(held.unlink)
            await asyncio.sleep(int(answer.headers["retry-after"]))
        connection.close()

    await closed_loop(url, requests, connections=2, until=lambda a: a.sent >= 6)  # measures
    await asyncio.to_thread(held.touch)
    await asyncio.gather(*(client(n) for n in range(32)))
    return account, returns


@pytest.mark.alone
def test_ten_times_the_load_does_not_reduce_what_is_answered() -> None:
    forms = shots("/embed", files(), tiles=32, headers=NO_CACHE)
    for _ in range(TRIES):
        with ServerProcess(LANDMOE_QUEUE_SIZE="256") as server:
            process = psutil.Process(server.process.pid)

            async def main(url: str, process: psutil.Process) -> tuple[Account, Account, Account, int, int]:
                await closed_loop(url, forms, connections=2, until=for_seconds(1))  # warms up
                before = await closed_loop(url, forms, connections=4, until=for_seconds(4))
                resident = process.memory_info().rss
                rate = 10 * before.requests_per_s
                flood = await open_loop(url, forms, per_s=rate, duration_s=20)
                grown = process.memory_info().rss - resident
                after = await closed_loop(url, forms, connections=4, until=for_seconds(4))
                return before, flood, after, resident, grown

            before, flood, after, resident, grown = asyncio.run(main(server.url, process))
            assert server.stop() == 0
        for name, account in (("1x before", before), ("10x", flood), ("1x after", after)):
            told(name, account)
        # The flood lasts until the queue is empty again: all that time tiles were there to be computed.
        goodput = flood.tiles / flood.wall_s
        at_1x = (before.tiles + after.tiles) / (before.wall_s + after.wall_s)
        print(f"goodput {goodput / at_1x:.2f} of 1x; {resident / 1e6:.0f} MB, then {grown / 1e6:+.0f} MB")
        assert before.failed == before.refused == after.failed == 0
        assert flood.lost == flood.failed == flood.unsent == 0
        assert flood.sent == flood.answered + flood.refused
        assert flood.refused > flood.sent / 2
        assert min(flood.retry_after_s) >= 1
        assert grown < 300e6
        # 0.1 s on a machine with nothing else to do; where processes queue for the CPUs, so do refusals.
        refusal_s = float(np.percentile(flood.refusals, 99))
        soon_s = 0.1 * max(1, psutil.getloadavg()[0] / cpu.available())
        if goodput >= 0.85 * at_1x and refusal_s < soon_s:
            return
    raise AssertionError(
        f"goodput {goodput / at_1x:.2f} of 1x; refused in {refusal_s:.3f} s, not {soon_s:.3f}"
    )
