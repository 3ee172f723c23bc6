"""A service with Redis as its only cache, and clients that compare all it answers."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.rasters import dn_pixels, geotiff
from tests.redis_server import RedisServer
from tests.service.server_process import ServerProcess

TIFF = {"Content-Type": "image/tiff"}
TILES = [geotiff(dn_pixels(seed=seed)) for seed in range(12)]
TIMEOUT_S = 60
CLIENTS = 4


class Load:
    """Clients that send tiles without pause; every embedding is compared with the uncached one."""

    def __init__(self, url: str, truth: list[list[float]]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._truth = truth
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(i,)) for i in range(CLIENTS)]

    def _send(self, seed: int) -> None:
        order = random.Random(seed)
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            while not self._stop.is_set():
                index = order.randrange(len(TILES))
                try:
                    answer = client.post("/embed", content=TILES[index], headers=TIFF)
                except httpx.HTTPError as error:
                    self.outcomes["lost"] += 1
                    self.wrong.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.outcomes["answered"] += 1
                    self.outcomes[answer.headers["X-Cache"]] += 1
                    if answer.json()["data"][0]["embedding"] != self._truth[index]:
                        self.wrong.append(f"tile {index} has another embedding")
                elif answer.status_code in (429, 503, 504):
                    self.outcomes["refused"] += 1
                else:
                    self.outcomes["lost"] += 1
                    self.wrong.append(answer.text)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until_hits(self, more: int) -> None:
        """Waits until so many more tiles have come from the cache."""
        before = self.outcomes["hit"]
        until(lambda: self.outcomes["hit"] >= before + more)

    def until_answers(self, more: int) -> None:
        """Waits until so many more requests were answered."""
        before = self.outcomes["answered"]
        until(lambda: self.outcomes["answered"] >= before + more)

    def check(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Prints the figures; nothing was lost, refused or wrong."""
        counts = {key: self.outcomes[key] for key in ("answered", "refused", "lost", "hit", "miss")}
        sent = counts["answered"] + counts["refused"] + counts["lost"]
        with capsys.disabled():
            print(f"\n{name}: {sent} requests sent, " + ", ".join(f"{n} {key}" for key, n in counts.items()))
        assert self.wrong == []
        assert counts["answered"] == sent > 0


class CachingService:
    """A running service that keeps results in Redis only."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def embed(self, index: int, *, fresh: bool = False) -> httpx.Response:
        headers = TIFF | ({"Cache-Control": "no-cache"} if fresh else {})
        answer = self._client.post("/embed", content=TILES[index], headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def redis(self) -> str:
        """How the service says that Redis does; it is ready in any case."""
        answer = self._client.get("/readyz")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["redis"])

    def metric(self, name: str, labels: str = "") -> float:
        text = self._client.get("/metrics").text
        found = re.search(rf"^{name}{re.escape(labels)} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"{name}{labels} is not in the metrics"
        return float(found[1])

    def close(self) -> None:
        self._client.close()


@contextmanager
def caching_service(redis: RedisServer, *options: str) -> Iterator[CachingService]:
    with ServerProcess(
        *options,
        LANDMOE_REDIS_URL=redis.url,
        LANDMOE_CACHE_MB="0",
        # The machine may be busy with other things; only faults that are made here shall be seen.
        LANDMOE_REDIS_TIMEOUT_MS="2500",
        LANDMOE_REDIS_CONNECT_TIMEOUT_MS="2500",
    ) as process:
        service = CachingService(process.url)
        try:
            yield service
        finally:
            service.close()
        assert process.stop() == 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
