"""Several server processes behind one address: starts them, restarts those that die or freeze, stops them."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import NamedTuple

import structlog
from uvicorn.config import STARTUP_FAILURE

from service import heartbeat
from service.heartbeat import Heart, Pulse
from service.telemetry import worker_files

log = structlog.get_logger()

Work = Callable[[socket.socket, Heart], None]

# A process that dies this soon after its start is not restarted at once: it would only burn the CPU.
_SOON_S = 10.0
_LONGEST_PAUSE_S = 30.0
# No start takes ten minutes: the bundle is on this machine by then.
_FROZEN_START_LOOKS = 120
# On top of the grace, before a process that does not end is killed: its own end takes a moment.
_MARGIN_S = 5.0


class _Worker(NamedTuple):
    started: float  # of time.monotonic
    pulse: Pulse


class Supervisor:
    """Keeps worker processes running.

    Args:
        work: run in each process with the listening socket and a heart, whose `beat` it calls every second
            once it serves; must be importable there.
        count: of processes.
        listener: bound socket, handed to each.
        grace_s: what they have to finish after they were told to stop.
    """

    def __init__(self, work: Work, count: int, listener: socket.socket, grace_s: float) -> None:
        self._work = work
        self._listener = listener
        self._grace_s = grace_s
        self._context = multiprocessing.get_context("spawn")
        self._signals, self._signalled = socket.socketpair()
        self._processes: dict[SpawnProcess, _Worker] = {}
        self._count = count
        self._deaths = 0  # in a row, each soon after the start

    def run(self) -> bool:
        """Until SIGTERM, SIGINT or SIGHUP, where it is not ignored; a second one kills the processes.

        Returns:
            Whether everything went in order: no process failed to start, and none was killed at the end.
        """
        stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handled = [number for number in stopping if signal.getsignal(number) is not signal.SIG_IGN]
        before = {n: signal.signal(n, self._on_signal) for n in handled}
        try:
            for _ in range(self._count):
                self._start()
            started = self._watch()
            return self._stop() and started
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # comes twice from a terminal that is closed
            signal.signal(number, signal.SIG_IGN)
        self._signalled.send(b"!")

    def _start(self) -> None:
        worker_files.renew()
        heard, told = self._context.Pipe(duplex=False)
        with told:
            process = self._context.Process(target=_worker, args=(self._work, self._listener, told))
            try:
                process.start()
            except OSError:
                heard.close()
                raise
        self._processes[process] = _Worker(time.monotonic(), Pulse(heard))

    def _watch(self) -> bool:
        """Restarts what dies until told to stop; False if none of the processes can start."""
        first = set(self._processes)
        restarts: list[float] = []  # when; others are seen to meanwhile
        look = time.monotonic() + heartbeat.LOOK_EVERY_S
        while True:
            pause = max(0.0, min([look, *restarts]) - time.monotonic())
            ready = wait([self._signals, *(process.sentinel for process in self._processes)], pause)
            if self._signals in ready:
                self._signals.recv(1)
                return True
            if time.monotonic() >= look:
                self._end_frozen()
                look = time.monotonic() + heartbeat.LOOK_EVERY_S
            for process in [p for p in self._processes if p.exitcode is not None]:
                worker = self._processes.pop(process)
                worker.pulse.close()
                lived_s = time.monotonic() - worker.started
                try:
                    worker_files.died(process.pid)
                except (OSError, ValueError, RuntimeError, struct.error) as error:
                    # They are no reason not to replace it.
                    log.warning("metrics of a dead worker stay", pid=process.pid, reason=str(error))
                # At first it would fail again. Later others go on: a bundle may be half written just now.
                if process.exitcode == STARTUP_FAILURE and (process in first or not self._processes):
                    return False
                self._deaths = self._deaths + 1 if lived_s < _SOON_S else 0
                pause = min(_LONGEST_PAUSE_S, 2.0 ** (self._deaths - 2)) if self._deaths > 1 else 0.0
                log.error("worker died", pid=process.pid, status=process.exitcode, restart_in_s=pause)
                restarts.append(time.monotonic() + pause)
            due = [when for when in restarts if when <= time.monotonic()]
            restarts = [when for when in restarts if when not in due]
            for _ in due:
                try:
                    self._start()
                except OSError as error:  # no memory for another process, or too many; those that are go on
                    log.error("worker cannot be started", reason=str(error), retry_in_s=_SOON_S)  # noqa: TRY400
                    restarts.append(time.monotonic() + _SOON_S)

    def _end_frozen(self) -> None:
        """Ends processes that stand still, also in their start; the next turn finds and replaces them."""
        for process, worker in self._processes.items():
            missed = worker.pulse.look()
            allowed = heartbeat.FROZEN_LOOKS if worker.pulse.started else _FROZEN_START_LOOKS
            if missed == allowed and process.pid is not None and process.exitcode is None:
                log.error("worker frozen", pid=process.pid, silent_s=missed * heartbeat.LOOK_EVERY_S)
                os.kill(process.pid, signal.SIGABRT)  # it writes where each of its threads is, and dies
            elif missed > allowed:
                process.kill()

    def _stop(self) -> bool:
        """Lets the processes finish; False if one had to be killed."""
        self._listener.close()  # else connections would go on to be taken, and nobody would answer
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + self._grace_s + _MARGIN_S
        while running := [process for process in self._processes if process.is_alive()]:
            remaining = deadline - time.monotonic()
            ready = wait([self._signals, *(p.sentinel for p in running)], max(0, remaining))
            if self._signals in ready or remaining <= 0:
                log.error("workers killed", count=len(running))
                for process in running:
                    process.kill()
                    process.join()
                return False
        return True


def _worker(work: Work, listener: socket.socket, told: Connection) -> None:
    faulthandler.enable()  # a worker that crashes, or is ended for being frozen, says where it was
    # Ctrl-C, or a terminal that is closed, goes to the whole group; the supervisor says when to stop.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()
    work(listener, Heart(told))


def _end_with(sentinel: int) -> None:
    """A supervisor that was killed must not leave processes that keep the port and the memory."""
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
