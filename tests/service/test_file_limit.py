"""How many files a server may have open."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from service.file_limit import raise_limit
from service.telemetry import logs
logs.configure("info", "json")
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("soft", "hard", "expected"), [(64, 1_500, 1_500), (1_200, 1_200, 1_200)])
def test_as_many_as_the_system_allows(soft: int, hard: int, expected: int) -> None:
    done = limited(soft, hard)
    assert done.stdout.split() == [str(expected)] * 2
    assert done.stderr == ""


def test_few_are_said() -> None:
    done = limited(64, 100)
    assert done.stdout.split() == ["100", "100"]
    line = json.loads(done.stderr)
    assert (line["level"], line["allowed"], line["wanted"]) == ("warning", 100, 1_024)
