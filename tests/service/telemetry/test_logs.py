"""Lines of the log: ours and the standard library's in one form, and none that fails a request."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.telemetry import logs
from tests.service.server_process import run


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers[:], root.level
    yield
    structlog.configure(**before[0])
    root.handlers[:] = before[1]
    root.setLevel(before[2])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_ours_and_the_standard_librarys_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = structlog.get_logger()
    log.debug("not said")
    log.info("request", status=200)
    logging.getLogger("uvicorn.error").info("started")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("defect")
    ours, theirs, defect = lines(capsys)
    assert (ours["event"], ours["level"], ours["status"]) == ("request", "info", 200)
    assert (theirs["event"], theirs["level"]) == ("started", "info")
    assert ours["timestamp"].endswith("Z")
    assert "ValueError: broken" in defect["exception"]


def test_lines_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    structlog.get_logger().info("request", status=200)
    (line,) = capsys.readouterr().err.splitlines()
    assert "request" in line


@pytest.mark.parametrize(
    "path", ["/\x1b]0;title\x07\x1b[2J", "/\x1b[31m red\n2026 fake", "/\x9b2J", "/\u202etxt"]
)
def test_a_path_does_not_steer_the_terminal(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    structlog.get_logger().info("request", path=path)
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert not any(sign in told for sign in ("\x1b]", "\x1b[2J", "\x1b[31m red", "\x9b", "\u202e", "\x07"))


def test_text_that_is_not_unicode(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger().info("request", path="/\udcff")
    (line,) = lines(capsys)
    assert "udcff" in line["path"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_log_that_cannot_be_written_fails_nobody(log_format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Full(), "utf-8", write_through=True))
    logs.configure("info", log_format)
    structlog.get_logger().info("request")


def test_what_the_hubs_library_says_is_one_json_line() -> None:
    code = """
import logging
from model import hub
from service.telemetry import logs

logs.configure("info", "json")
try:
    hub.fetch_bundle("hf://owner/name")
except hub.HubError:
    logging.getLogger("huggingface_hub.utils").warning("once")
"""
    done = run("-c", code, program=sys.executable, HF_HUB_OFFLINE="1")
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["event"] == "once"
