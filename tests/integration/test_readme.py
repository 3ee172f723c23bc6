"""The README's first request and its refusal, compared with what a running service answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.server_process import ServerProcess, run

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
ELLIPSIS = "…"


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    with ServerProcess() as process, httpx.Client(base_url=process.url, timeout=60) as client:
        yield client


def shown(number: int) -> Any:
    """The README's JSON block, what it leaves out marked by ELLIPSIS."""
    block = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[number]
    in_lists = re.sub(rf",\s*{ELLIPSIS}\s*\]", f', "{ELLIPSIS}"]', block)
    return json.loads(re.sub(rf",\s*{ELLIPSIS}\s*}}", "}", in_lists))


def agrees(written: Any, answered: Any) -> bool:
    """Whether an answer is what is written, apart from what is left out."""
    match written:
        case dict():
            return all(key in answered and agrees(value, answered[key]) for key, value in written.items())
        case [*first, last] if last == ELLIPSIS:
            return len(answered) > len(first) and all(map(agrees, first, answered))
        case list():
            return len(written) == len(answered) and all(map(agrees, written, answered))
        case str() if written.endswith(ELLIPSIS):
            return bool(answered.startswith(written.removesuffix(ELLIPSIS)))
        case float():
            return bool(answered == pytest.approx(written, rel=1e-5))
        case _:
            return bool(written == answered)


def test_the_first_request(service: httpx.Client, tmp_path: Path) -> None:
    tile = tmp_path / "tile.tif"
    assert run("sample-tile", "-o", str(tile)).returncode == 0
    files = {"tile": (tile.name, tile.read_bytes())}
    answer = service.post("/embed", files=files, data={"datetime": "2024-07-01T10:10:00Z"})
    assert answer.status_code == 200
    written = shown(0)
    assert agrees(written, answer.json()), answer.text
    assert written["data"][0].keys() == answer.json()["data"][0].keys()


def test_the_refusal(service: httpx.Client) -> None:
    answer = service.post("/embed", files={"tile": ("LICENSE", (ROOT / "LICENSE").read_bytes())})
    assert answer.status_code == 415
    assert agrees(shown(1), answer.json()), answer.text


def test_the_comparison_sees_differences() -> None:
    assert not agrees({"a": 1}, {"a": 2})
    assert not agrees([1, ELLIPSIS], [2, 3])
    assert not agrees(f"ab{ELLIPSIS}", "b")
    assert not agrees(0.5, 0.6)
