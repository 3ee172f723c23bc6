"""A short campaign against a real server, in every test run; `python -m tests.fuzz` runs a long one."""

from __future__ import annotations

import asyncio
import random

import psutil
import pytest

from tests.fuzz import campaign, seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.tiff import layout
from tests.rasters import geotiff
from tests.service.server_process import ServerProcess

INPUTS = 1_500


def test_mutations_reach_behind_the_header() -> None:
    """Most mutated files are still followed to a directory, else only the magic would be tested."""
    good = geotiff(compress="deflate")
    files = [mutated(good, random.Random(i)) for i in range(300)]
    followed = [found for data in files if (found := layout(data)) is not None and found.entries]
    assert len(followed) > 200
    assert len(set(files)) > 250


def test_every_entry_of_a_good_file_is_found() -> None:
    for data in (geotiff(), geotiff(BIGTIFF="YES", ENDIANNESS="BIG")):
        found = layout(data)
        assert found is not None
        tags = [entry.tag for entry in found.entries]
        assert tags == sorted(tags)
        assert {256, 257, 258, 259, 277, 33550, 34735} <= set(tags)


@pytest.mark.slow
@pytest.mark.server
def test_no_input_breaks_the_service() -> None:
    with ServerProcess(LANDMOE_LOG_LEVEL="info", **campaign.SETTINGS) as server:
        report = asyncio.run(
            campaign.run(
                server.url,
                seeds.generated(),
                inputs=INPUTS,
                seed=1,
                process=psutil.Process(server.process.pid),
            )
        )
        print(report.text())
        assert server.stop() == 0
    assert report.findings == []
    assert report.inputs == INPUTS
    assert report.statuses[200] > INPUTS / 20
    assert report.statuses[422] > INPUTS / 20
    assert report.growth_mb < campaign.MAX_GROWTH_MB
    assert not [line for line in server.lines if line["event"] == "defect"]
