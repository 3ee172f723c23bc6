"""An engine without a network: its outputs are a plain function of its inputs, which tests can foretell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.config import ModelConfig, Preprocessing
from service.engine import EngineError

M = 12
CONFIG = ModelConfig(
    embed_dim=M, depth=3, first_hidden=8, last_hidden=4, num_heads=2, num_groups=1, decoder_dim=12
)
BUNDLE = Bundle(
    path=Path("fake"),
    name="fake",
    version="0.0.1",
    digest="f" * 64,
    trained=True,
    config=CONFIG,
    preprocessing=Preprocessing(missing_metadata_trained=True),
    training={"data": "none"},
    metrics={},
    parity={},
    card="# Fake\nNo network.",
    files={"encoder.fp32.onnx": "e" * 64, "card.md": "c" * 64},
)
UNTRAINED = replace(BUNDLE, trained=False, preprocessing=Preprocessing())


class FakeEngine:
    """Says what it was asked; fails, waits or misbehaves on demand.

    A tile whose upper left DN of the first band is `poison` fails with its whole batch. `fault` is called in
    every run, and may raise, exit or hang; `restart_fault` in every restart.
    """

    precision = "fp32"
    provider = "cpu"
    runtime = "fake"
    kernels: str | None = None
    gives_routing = False

    def __init__(
        self,
        bundle: Bundle = BUNDLE,
        *,
        poison: int | None = None,
        concurrency: int = 1,
        batch_size: int = 32,
    ) -> None:
        self.bundle = bundle
        self.poison = poison
        self.concurrency = concurrency
        self.batch_size = self.chunk_size = batch_size
        self.fault: Callable[[], None] = lambda: None
        self.restart_fault: Callable[[], None] = lambda: None
        self.restarts = 0
        self.alone: list[bool] = []
        self.batches: list[int] = []
        self.asked: list[tuple[str, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.inside = 0  # runs that have begun and not ended
        self._lock = threading.Lock()

    def run(
        self,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: Sequence[str],
        *,
        alone: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        assert dn.dtype == np.uint16
        assert dn.shape[1:] == (7, 40, 40)
        assert metadata.dtype == np.float32
        assert metadata.shape == (len(dn), 4, 2)
        with self._lock:
            self.inside += 1
        self.entered.set()
        try:
            assert self.gate.wait(60), "the test never opened the gate"
            with self._lock:
                self.batches.append(len(dn))
                self.asked.append(tuple(outputs))
                self.alone.append(alone)
            self.fault()
        finally:
            with self._lock:
                self.inside -= 1
        if self.poison is not None and (dn[:, 0, 0, 0] == self.poison).any():
            raise EngineError("poisoned batch")
        return {name: expected(dn, metadata, name) for name in outputs}

    def restart(self) -> None:
        self.restarts += 1
        self.restart_fault()


def expected(dn: NDArray[np.uint16], metadata: NDArray[np.float32], output: str) -> NDArray[np.float32]:
    """What `FakeEngine` gives: float32, shaped as the real outputs are with M dimensions."""
    pixels = dn.reshape(len(dn), 7, -1)[:, :, : M * 8].astype(np.float32)
    features = np.concatenate([pixels.mean(axis=2) / 1e4, metadata.reshape(len(dn), 8)[:, : M - 7]], axis=1)
    if output == "tokens":
        return np.stack([features + token for token in range(CONFIG.num_tokens)], axis=1)
    if output == "patch_mean_std":
        return np.concatenate([features, features / 2], axis=1)
    return features + {"mean": 0, "cls": 1, "patch_mean": 2}[output]
