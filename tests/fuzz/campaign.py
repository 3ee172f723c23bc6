"""Sends mutated files to a service and watches what becomes of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median

import httpx
import psutil

from tests.fuzz.mutations import mutated

MB = 1_000_000
_PARAMETERS = (
    {},
    {},
    {},
    {"units": "dn"},
    {"units": "reflectance", "fit": "resize"},
    {"fit": "resize", "bands": "1,2,3,4,5,6,7"},
    {"fit": "grid", "stride": "20"},
    {"fit": "crop", "datetime_source": "tag", "pooling": "tokens"},
    {"scale": "1e308", "offset": "-1e308"},
    {"bands": "1,1,1,1,1,1,1", "units": "dn", "fit": "resize", "format": "npy"},
    {"location_source": "file", "format": "geojson"},
)
_NAMES = (
    "a.tif",
    "../../etc/passwd",
    "a\r\nX-Evil: 1.tif",
    "\u202egnp.tif",
    "x" * 3000,
    "/vsizip/a.zip",
    "\0",
    '"',
)
_SLOW_S = 2.0  # kept to be looked at, no finding
_SAMPLES = 100  # of resident memory

MAX_GROWTH_MB = 30  # in all of a campaign after its beginning; the process has about 230 MB
# The results that the service keeps would take 20,000 inputs to reach their bound of 64 MB: growth by design,
# behind which a leak could hide. With this setting they reach it at the beginning.
SETTINGS = {"LANDMOE_CACHE_MB": "4"}


@dataclass
class Report:
    """What happened.

    `rss_mb` is (inputs sent, resident megabytes) over time; `findings` are what must not happen: status or
    kind of failure, and the input's digest.
    """

    inputs: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    slowest_s: list[float] = field(default_factory=list)
    rss_mb: list[tuple[int, float]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0

    @property
    def growth_mb(self) -> float:
        """Resident memory of the last third of the inputs over that of the third after the first tenth.

        Medians, for a sample may be taken while large files are decoded. In the first tenth libraries are
        used for the first time.
        """
        early = [rss for sent, rss in self.rss_mb if 0.1 <= sent / self.inputs <= 0.43]
        late = [rss for sent, rss in self.rss_mb if sent / self.inputs >= 0.67]
        return median(late) - median(early) if early and late else 0.0

    def text(self) -> str:
        """For people."""
        statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(self.statuses.items()))
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.kinds.most_common(12))
        rss = ", ".join(f"{mb:.0f}" for _, mb in self.rss_mb[:: max(1, _SAMPLES // 10)])
        return "\n".join(
            [
                f"inputs        {self.inputs:,} in {self.seconds:.0f} s",
                f"by status     {statuses}",
                f"by problem    {kinds}",
                f"slowest       {', '.join(f'{s:.2f}' for s in self.slowest_s[:5])} s",
                f"resident MB   {rss} (grown by {self.growth_mb:.0f})",
                f"findings      {len(self.findings)}",
                *self.findings[:20],
            ]
        )


async def run(
    url: str,
    seeds: Sequence[bytes],
    *,
    inputs: int,
    seed: int,
    connections: int = 4,
    deadline_s: float = 40,
    process: psutil.Process | None = None,
    keep: Path | None = None,
) -> Report:
    """Sends mutations of seeds.

    Args:
        url: of the service.
        seeds: good files.
        inputs: how many are sent.
        seed: of the random generator; the same inputs are sent in the same order.
        connections: at once.
        deadline_s: an answer that takes longer is a finding.
        process: the server's, whose memory is looked at; its children's is added.
        keep: folder where inputs of findings are kept.
    """
    report = Report()
    numbers = iter(range(inputs))
    start = time.perf_counter()
    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=url, timeout=deadline_s, limits=limits) as client:

        async def sender() -> None:
            for number in numbers:
                rng = random.Random(f"{seed}/{number}")
                data = mutated(rng.choice(seeds), rng)
                await _send(client, data, rng, report, keep)
                if process is not None and number % max(1, inputs // _SAMPLES) == 0:
                    report.rss_mb.append((number, _resident_mb(process)))
                if process is not None and not process.is_running():
                    report.findings.append("the server process has ended")
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(sender())
        report.seconds = time.perf_counter() - start
        if (await client.get("/readyz")).status_code != 200:
            report.findings.append("the service is not ready afterwards")
    if process is not None:
        report.rss_mb.append((inputs, _resident_mb(process)))
    return report


async def _send(
    client: httpx.AsyncClient, data: bytes, rng: random.Random, report: Report, keep: Path | None
) -> None:
    parameters = rng.choice(_PARAMETERS)
    begun = time.perf_counter()
    try:
        if rng.random() < 0.1:
            files = {"tile": (rng.choice(_NAMES), data, "image/tiff")}
            response = await client.post("/embed", data=parameters, files=files)
        else:
            response = await client.post(
                "/embed", params=parameters, content=data, headers={"Content-Type": "image/tiff"}
            )
    except httpx.HTTPError as error:
        _found(report, f"{type(error).__name__} {error}", data, parameters, keep)
        return
    taken = time.perf_counter() - begun
    report.inputs += 1
    report.statuses[response.status_code] += 1
    report.slowest_s = sorted([*report.slowest_s, taken], reverse=True)[:20]
    if taken > _SLOW_S and keep is not None:
        _keep(keep, data, f"slow-{taken:.0f}s-")
    if response.status_code != 200:
        kind = response.headers.get("content-type")
        if kind != "application/problem+json":
            _found(report, f"{response.status_code} as {kind}", data, parameters, keep)
            return
        report.kinds[response.json()["type"].rpartition(":")[2]] += 1
    if response.status_code >= 500 and response.status_code not in (503, 504, 507):
        _found(report, f"status {response.status_code}", data, parameters, keep)


def _found(report: Report, what: str, data: bytes, parameters: dict[str, str], keep: Path | None) -> None:
    report.findings.append(f"{what}: {len(data):,} bytes {_name(data)} with {parameters}")
    if keep is not None:
        _keep(keep, data, "")


def _keep(folder: Path, data: bytes, prefix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}{_name(data)}.tif").write_bytes(data)


def _name(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def _resident_mb(process: psutil.Process) -> float:
    try:
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / MB
    except psutil.NoSuchProcess:
        return 0.0
