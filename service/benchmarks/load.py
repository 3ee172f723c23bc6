"""A load generator: prepared requests over HTTP/1.1 connections, with an account of what became of each.

Written on plain sockets, since the client shares the machine with what it measures: a general HTTP client
takes longer for a request than the service does for a cached answer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

_REFUSED = (429, 503)


class LoadError(RuntimeError):
    """The load cannot be applied; says why."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A request ready to be sent, and how many tiles it brings."""

    content: bytes
    tiles: int


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Account:
    """What became of the requests of a load.

    `lost` were sent and never answered; `unsent` found nobody to connect to. Latencies in seconds, from the
    first byte sent to the last byte received. `cpu_s` is what the load generator itself used.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    lost: int = 0
    unsent: int = 0
    tiles: int = 0  # answered
    wall_s: float = 0.0
    cpu_s: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    retry_after_s: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def requests_per_s(self) -> float:
        """Answered requests by wall clock."""
        return self.answered / self.wall_s if self.wall_s else 0.0

    @property
    def tiles_per_s(self) -> float:
        """Tiles of the answered requests by wall clock."""
        return self.tiles / self.wall_s if self.wall_s else 0.0

    def summary(self) -> dict[str, float | int | dict[str, int]]:
        """The figures, JSON-ready; latencies in milliseconds."""
        return {
            **{
                name: getattr(self, name)
                for name in ("sent", "answered", "refused", "failed", "lost", "unsent")
            },
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "requests_per_s": round(self.requests_per_s, 2),
            "tiles_per_s": round(self.tiles_per_s, 2),
            "p50_ms": _percentile_ms(self.latencies, 50),
            "p99_ms": _percentile_ms(self.latencies, 99),
            "refusal_p99_ms": _percentile_ms(self.refusals, 99),
            "wall_s": round(self.wall_s, 3),
            "client_cpu_share": round(self.cpu_s / self.wall_s, 3) if self.wall_s else 0.0,
        }

    def note(self, answer: Answer, shot: Shot, seconds: float) -> None:
        """Counts an answer."""
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.answered += 1
            self.tiles += shot.tiles
            self.latencies.append(seconds)
        elif answer.status in _REFUSED:
            self.refused += 1
            self.refusals.append(seconds)
            self.retry_after_s.append(int(answer.headers.get("retry-after", "0")))
        else:
            self.failed += 1


class Connection:
    """One keep-alive connection, opened when it is needed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise LoadError(f"{url} cannot be loaded; expected http://host:port")
        self._address = (parts.hostname, parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, shot: Shot, account: Account) -> Answer | None:
        """Sends a request and counts what becomes of it; None if there was no answer."""
        start = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
        except OSError:
            account.unsent += 1
            return None
        reader, writer = self._streams
        account.sent += 1
        try:
            writer.write(shot.content)
            await writer.drain()
        except OSError:
            pass  # an answer may have come all the same: a refusal, before the body was sent
        try:
            answer = await _read(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            account.lost += 1
            self.close()
            return None
        account.note(answer, shot, time.perf_counter() - start)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def shots(
    path: str, files: Sequence[bytes], *, tiles: int = 1, headers: Sequence[str] = (), form: bool = False
) -> list[Shot]:
    """Requests of `tiles` files each, raw for one unless `form`, a form for more; every file is used once."""
    made = []
    for i in range(0, len(files) - tiles + 1, tiles):
        group = files[i : i + tiles]
        if tiles == 1 and not form:
            media_type, body = "image/tiff", group[0]
        else:
            boundary = secrets.token_hex(16)
            media_type = f"multipart/form-data; boundary={boundary}"
            part = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="tile"; filename="tile.tif"\r\n'
                "Content-Type: image/tiff\r\n\r\n"
            ).encode()
            body = b"".join(part + file + b"\r\n" for file in group) + f"--{boundary}--\r\n".encode()
        lines = [f"POST {path} HTTP/1.1", "Host: load", f"Content-Type: {media_type}"]
        lines += [f"Content-Length: {len(body)}", *headers, "", ""]
        made.append(Shot("\r\n".join(lines).encode() + body, tiles))
    return made


async def closed_loop(
    url: str, requests: Sequence[Shot], *, connections: int, until: Callable[[Account], bool]
) -> Account:
    """Each connection sends its next request when it has the answer to the last.

    Args:
        url: of the service, http://host:port.
        requests: sent in turn, over and over.
        connections: at once.
        until: asked before each request; ends the load. Those under way are still answered.
    """
    account = Account()
    turns = _forever(requests)

    async def work() -> None:
        connection = Connection(url)
        while not until(account):
            if await connection.send(next(turns), account) is None:
                await asyncio.sleep(0.01)  # nobody there: no reason to spin
        connection.close()

    with _clocked(account):
        await asyncio.gather(*(work() for _ in range(connections)))
    return account


async def open_loop(url: str, requests: Sequence[Shot], *, per_s: float, duration_s: float) -> Account:
    """Sends so many requests per second, whether or not the earlier ones are answered."""
    account = Account()
    turns = _forever(requests)
    idle: list[Connection] = []

    async def send() -> None:
        connection = idle.pop() if idle else Connection(url)
        await connection.send(next(turns), account)
        idle.append(connection)

    with _clocked(account):
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for n in range(int(per_s * duration_s)):
                await asyncio.sleep(max(0.0, start + n / per_s - time.perf_counter()))
                group.create_task(send())
    for connection in idle:
        connection.close()
    return account


def for_seconds(seconds: float) -> Callable[[Account], bool]:
    """Ends a load after this time."""
    end = time.perf_counter() + seconds
    return lambda _: time.perf_counter() >= end


class _clocked:  # noqa: N801  # used as a function
    """Measures wall clock and CPU of a load."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self._account.wall_s = time.perf_counter() - self._wall
        self._account.cpu_s = time.process_time() - self._cpu


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split(" ", 2)[1]), headers, body)


def _forever(requests: Sequence[Shot]) -> Iterator[Shot]:
    if not requests:
        raise LoadError("no requests to send")
    while True:
        yield from requests


def _percentile_ms(seconds: Sequence[float], percentile: float) -> float:
    return round(float(np.percentile(seconds, percentile)) * 1000, 2) if seconds else 0.0
