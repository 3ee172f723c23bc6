"""Threads of the engine: when they end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from service.app import create_app
from service.batching.engine_worker import EngineWorker
from service.client import AsyncClient, Client
from service.clients.in_process import InProcessTransport
from service.settings import Settings
from tests.rasters import dn_pixels, geotiff
from tests.service.fake_engine import FakeEngine

PATIENCE_S = 20  # on a busy machine; the threads need milliseconds


def left_over(before: set[threading.Thread]) -> set[threading.Thread]:
    """Threads that were not there before, once they had time to end."""
    until = time.monotonic() + PATIENCE_S
    while (more := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    return more


def test_an_engine_s_thread_has_ended_when_the_application_is_closed() -> None:
    before = set(threading.enumerate())

    def engines() -> list[str]:
        return [t.name for t in set(threading.enumerate()) - before if t.name.startswith("engine-")]

    async def scenario() -> list[str]:
        transport = InProcessTransport(Settings(), app=create_app(Settings(), FakeEngine(concurrency=3)))
        async with transport:
            assert engines()
        return engines()

    assert asyncio.run(scenario()) == []


def test_no_thread_is_left_after_the_client_is_closed() -> None:
    before = set(threading.enumerate())
    transport = InProcessTransport(Settings(), app=create_app(Settings(), FakeEngine()))
    with Client("http://local", transport=transport) as client:
        client.embed([geotiff(dn_pixels(seed=n)) for n in range(40)])
        client.embed([geotiff(dn_pixels(90, 90))], fit="grid")
        assert set(threading.enumerate()) - before
    assert left_over(before) == set()


class RefusedError(Exception):
    """Raised inside the application's time."""


def test_no_thread_is_left_after_an_error() -> None:
    before = set(threading.enumerate())
    transport = InProcessTransport(Settings(), app=create_app(Settings(), FakeEngine()))
    with pytest.raises(RefusedError), Client("http://local", transport=transport):
        raise RefusedError
    assert left_over(before) == set()


def test_no_thread_is_left_after_a_start_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: object) -> None:
        raise RefusedError

    monkeypatch.setattr("service.pipeline.Pipeline.warm_up", refuse)
    before = set(threading.enumerate())
    transport = InProcessTransport(Settings(), app=create_app(Settings(), FakeEngine()))
    with pytest.raises(RefusedError), Client("http://local", transport=transport):
        pass
    assert left_over(before) == set()


def test_no_thread_is_left_after_the_request_is_cancelled() -> None:
    before = set(threading.enumerate())

    async def scenario() -> None:
        engine = FakeEngine()
        engine.fault = lambda: time.sleep(0.3)
        transport = InProcessTransport(Settings(), app=create_app(Settings(), engine))
        async with AsyncClient("http://local", transport=transport) as client:
            await asyncio.wait_for(client.embed([geotiff()]), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert left_over(before) == set()


def test_python_waits_for_a_batch_under_way_when_it_exits() -> None:
    """Nobody has stopped the worker; the thread must not come back into a Python that is no more."""
    script = """
import asyncio, threading, time
from service.batching.engine_worker import EngineWorker

given_up = threading.Event()

def batch():
    given_up.wait()
    time.sleep(0.5)
    print("finished", flush=True)

async def main():
    try:
        await EngineWorker("engine-0").call(batch, 0.1)
    except TimeoutError:
        print("gone", flush=True)
        given_up.set()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["gone", "finished"], "")


def test_a_hung_batch_does_not_keep_python() -> None:
    script = """
import asyncio, threading
from service.batching import engine_worker

engine_worker._LAST_WAIT_S = 0.2

async def main():
    try:
        await engine_worker.EngineWorker("engine-0").call(threading.Event().wait, 0.1)
    except TimeoutError:
        print("gone")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["gone"], "")


def test_a_worker_says_that_it_has_ended() -> None:
    worker = EngineWorker("engine-0")
    assert not worker.ended
    worker.stop()
    until = time.monotonic() + PATIENCE_S
    while not worker.ended and time.monotonic() < until:
        time.sleep(0.001)
    assert worker.ended
