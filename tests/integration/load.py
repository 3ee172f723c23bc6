"""Clients that send one request after the other, and remember what became of each."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import httpx

NO_CACHE = {"Content-Type": "image/tiff", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request: `status` of the answer, or `error` where there was none.

    `sent` tells whether a connection was made: without one, nobody had taken the request.
    """

    began: float
    ended: float
    status: int | None
    error: str | None
    sent: bool
    cache: str | None


class Load:
    """Sends tiles to POST /embed from several threads until the block is left.

    Args:
        url: of the service or the gateway.
        tiles: bodies, taken in turn.
        clients: threads, each with one request at a time.
        headers: of every request.
        keep_alive: one connection for all requests of a client; otherwise one for each.
    """

    def __init__(
        self,
        url: str,
        tiles: Sequence[bytes],
        clients: int = 4,
        headers: dict[str, str] = NO_CACHE,
        keep_alive: bool = True,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._url = f"{url}/embed"
        self._tiles = itertools.cycle(tiles)
        self._headers = headers if keep_alive else headers | {"Connection": "close"}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]

    def _send(self) -> None:
        with httpx.Client(timeout=httpx.Timeout(60, connect=5)) as client:
            while not self._stop.is_set():
                content = next(self._tiles)
                began = time.monotonic()
                status = error = cache = None
                sent = True
                try:
                    answer = client.post(self._url, content=content, headers=self._headers)
                    status, cache = answer.status_code, answer.headers.get("X-Cache")
                except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
                    error, sent = repr(failure), False
                except httpx.TransportError as failure:
                    error = repr(failure)
                self.outcomes.append(Outcome(began, time.monotonic(), status, error, sent, cache))

    def answered(self, status: int = 200) -> int:
        """How many requests were answered with a status so far."""
        return sum(outcome.status == status for outcome in list(self.outcomes))

    def wait_for_answers(self, count: int, timeout_s: float = 60) -> None:
        """Waits until `count` more requests have been answered with 200."""
        target = self.answered() + count
        deadline = time.monotonic() + timeout_s
        while self.answered() < target:
            assert time.monotonic() < deadline, f"no {count} answers in {timeout_s:g} s: {self.summary()}"
            time.sleep(0.02)

    def last_cache(self) -> str | None:
        """What the latest answer's X-Cache said."""
        return self.outcomes[-1].cache if self.outcomes else None

    def failures(self) -> list[Outcome]:
        """Requests that were taken and not answered with 200."""
        return [outcome for outcome in self.outcomes if outcome.sent and outcome.status != 200]

    def summary(self) -> str:
        """How many of each outcome, for messages and reports."""
        kinds = Counter(str(outcome.status or outcome.error) for outcome in self.outcomes)
        return f"{len(self.outcomes)} requests: " + ", ".join(f"{n} x {kind}" for kind, n in kinds.items())

    def stop(self) -> None:
        """Lets every client finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
