"""Requests to real server processes with the real engine, and what became of them."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import cache

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service import sample
from service.benchmarks.load import Account, Shot, shots
from tests.service.server_process import ServerProcess

NO_CACHE = ("Cache-Control: no-cache",)
FAULTY = (sys.executable, "-m", "tests.service.faulty_server")


@cache
def files() -> list[bytes]:
    """64 tiles, no two alike."""
    return [sample.make(seed) for seed in range(64)]


@cache
def singles() -> list[Shot]:
    """A request for each of them."""
    return shots("/embed", files(), headers=NO_CACHE)


class Going:
    """`until` of a load that goes on until it is told to end; `account` is how far it is."""

    def __init__(self) -> None:
        self.account = Account()
        self.ended = False

    def __call__(self, account: Account) -> bool:
        self.account = account
        return self.ended

    async def answers(self, more: int) -> None:
        """Waits until so many more requests were answered."""
        before = self.account.answered
        async with asyncio.timeout(90):
            while self.account.answered < before + more:  # noqa: ASYNC110  # an account tells nobody
                await asyncio.sleep(0.01)


def told(name: str, account: Account, **more: object) -> None:
    """Prints what became of the requests."""
    print(f"\n{name}: {json.dumps({**account.summary(), **more})}")


def metric(server: ServerProcess, name: str, **labels: str) -> float:
    """The sum of a metric over all labels but those given."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
