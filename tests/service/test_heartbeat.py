"""Whether an event loop turns is known to its supervisor, or to a process without one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys

import pytest

from service.heartbeat import Heart, Pulse
from tests.service.server_process import STOP_TIMEOUT_S, ServerProcess


def test_a_pulse_counts_the_looks_that_hear_nothing() -> None:
    heard, told = multiprocessing.Pipe(duplex=False)
    pulse, heart = Pulse(heard), Heart(told)
    assert [pulse.look() for _ in range(3)] == [1, 2, 3]
    assert not pulse.started
    heart.beat()
    heart.beat()
    assert [pulse.look() for _ in range(3)] == [0, 1, 2]
    assert pulse.started
    heart.beat()
    assert pulse.look() == 0
    told.close()
    assert pulse.look() == 1
    pulse.close()


def test_a_heart_does_not_wait_for_a_supervisor_that_stands_still_or_is_gone() -> None:
    heard, told = multiprocessing.Pipe(duplex=False)
    heart = Heart(told)
    for _ in range(100_000):  # more than a pipe holds
        heart.beat()
    heard.close()
    heart.beat()
    told.close()


@pytest.mark.server
def test_a_server_without_a_supervisor_that_stands_still_says_where_and_ends() -> None:
    """A container's restart policy starts it again, but not for a health check that fails."""
    patched = """
import signal, time
from service import heartbeat
from service.cli import main

def stand_still(*_):
    time.sleep(600)

heartbeat.LOOK_EVERY_S, heartbeat.FROZEN_LOOKS = 1, 8
signal.signal(signal.SIGUSR1, stand_still)
main()
"""
    command = (sys.executable, "-c", patched, "serve", "--port", "0")
    with ServerProcess(command=command) as server:
        os.kill(server.process.pid, signal.SIGUSR1)
        assert server.wait_for("frozen")["pid"] == server.process.pid
        assert server.process.wait(STOP_TIMEOUT_S) == -signal.SIGABRT
    assert any("in stand_still" in str(line["event"]) for line in server.lines)
