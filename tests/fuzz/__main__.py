"""Fuzzes a service with mutated GeoTIFFs and says what became of it.

    python -m tests.fuzz --inputs 20000 --real ../shared/data

Starts a service of its own, or takes a running one by --url. Ends with status 1 if anything was answered with
a 5xx other than 503, 504 and 507, took longer than the deadline, or made the process end or grow.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.fuzz import campaign, seeds
from tests.service.server_process import ServerProcess


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the random generator")
    parser.add_argument("--real", type=Path, help="folder of real GeoTIFFs to mutate as well")
    parser.add_argument("--url", help="of a running service; else one is started")
    parser.add_argument("--pid", type=int, help="of the running service, to watch its memory")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--deadline-s", type=float, default=40)
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    given = parser.parse_args()
    files = seeds.generated() + (seeds.real(given.real) if given.real else [])
    with ExitStack() as stack:
        url, pid = given.url, given.pid
        if url is None:
            server = stack.enter_context(ServerProcess(LANDMOE_LOG_LEVEL="info", **campaign.SETTINGS))
            url, pid = server.url, server.process.pid
        report = asyncio.run(
            campaign.run(
                url,
                files,
                inputs=given.inputs,
                seed=given.seed,
                connections=given.connections,
                deadline_s=given.deadline_s,
                process=psutil.Process(pid) if pid else None,
                keep=given.keep,
            )
        )
    print(f"seeds         {len(files)}\n{report.text()}")
    grown = report.growth_mb > campaign.MAX_GROWTH_MB
    if grown:
        print(f"resident memory grew by more than {campaign.MAX_GROWTH_MB} MB")
    return int(grown or bool(report.findings))


if __name__ == "__main__":
    sys.exit(main())
