"""`landmoe serve` with an engine that can be hurt: SIGUSR1 kills one of its workers, SIGUSR2 makes one hang.

It computes nothing while the file is there that HELD_WHILE names, if it is set, and no worker of it is
replaced while the one of RESTART_HELD_WHILE is.

Run as `python -m tests.service.faulty_server`; LANDMOE_ variables set everything, the port is any free one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service import server, settings
from service.encoder_engine import EncoderEngine, make_engine


def held(variable: str) -> None:
    """Waits while the file is there that a variable of the environment names."""
    while (path := os.environ.get(variable)) and Path(path).exists():
        time.sleep(0.005)


class FaultyEngine:
    """The real engine, with faults."""

    def __init__(self, engine: EncoderEngine) -> None:
        self._engine = engine
        self.bundle, self.precision = engine.bundle, engine.precision
        self.provider, self.runtime, self.kernels = engine.provider, engine.runtime, engine.kernels
        self.gives_routing = engine.gives_routing
        self.concurrency, self.batch_size = engine.concurrency, engine.batch_size
        self.chunk_size = engine.chunk_size
        self.kill = self.hang = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)  # whatever else an engine has

    def run(
        self,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: Sequence[str],
        *,
        alone: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        if self.kill:
            self.kill = False
            raise SystemExit
        if self.hang:
            self.hang = False
            threading.Event().wait()
        held("HELD_WHILE")
        return self._engine.run(dn, metadata, outputs, alone=alone)

    def restart(self) -> None:
        held("RESTART_HELD_WHILE")
        self._engine.restart()


def faulty(given: settings.Settings, digest: str | None = None) -> FaultyEngine:
    engine = FaultyEngine(make_engine(given, digest))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(engine, "kill", True))
    signal.signal(signal.SIGUSR2, lambda *_: setattr(engine, "hang", True))
    return engine


if __name__ in ("__main__", "__mp_main__"):  # the latter in each of several processes
    server.make_engine = faulty  # type: ignore[assignment]  # where the command has the real one

if __name__ == "__main__":
    server.serve(settings.load(), server.bind("127.0.0.1", 0))
