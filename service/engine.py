"""What the service needs of an engine: prepared tiles in, the outputs asked for out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.outputs import POOLINGS, shapes


class EngineError(RuntimeError):
    """The engine could not be started, or gave no usable result; says why."""


class Engine(Protocol):
    """What the service needs of an engine."""

    @property
    def bundle(self) -> Bundle:
        """Whose encoder runs."""

    @property
    def precision(self) -> str:
        """The numbers it computes in: the bundle's name for them, such as fp32."""

    @property
    def provider(self) -> str:
        """What it runs on: cpu or cuda."""

    @property
    def runtime(self) -> str:
        """What computes: our own kernels, onnxruntime or openvino."""

    @property
    def kernels(self) -> str | None:
        """Which of our own kernels: fp32 (for AVX-512), avx2, bf16 or amx; None where others compute."""

    @property
    def concurrency(self) -> int:
        """Threads that may call `run` at once, to get the most done."""

    @property
    def batch_size(self) -> int:
        """Tiles in a batch beyond which it gets no faster."""

    @property
    def chunk_size(self) -> int:
        """Tiles that it computes at once; a smaller batch is less efficient."""

    @property
    def gives_routing(self) -> bool:
        """Whether it has the output `ROUTING`."""

    def run(
        self,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: Sequence[str],
        *,
        alone: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Embeds a batch.

        Args:
            dn: uint16 (B, 7, 40, 40), invalid pixels already filled.
            metadata: float32 (B, 4, 2), (week, hour, lat, lon) x (sin, cos).
            outputs: those of `POOLINGS` to compute, and `ROUTING` where it has that.
            alone: nothing else runs: this run may take all the device to answer soonest.

        Returns:
            float32: mean, cls, patch_mean (B, m); patch_mean_std (B, 2m); tokens (B, 105, m);
            routing (B, depth, experts).

        Raises:
            EngineError: no result.
        """

    def restart(self) -> None:
        """Starts over after a failure; called from a thread of its own while other threads may still run.

        Raises:
            EngineError: it cannot be started.
        """


def warm_up(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """Runs every batch size once, so that no request pays for the first one's allocations.

    Raises:
        EngineError: the encoder cannot be run, or its outputs are not what its configuration says.
    """
    config = engine.bundle.config
    side, expected = config.image_size, shapes(config)
    for size in batch_sizes:
        dn = np.full((size, config.in_channels, side, side), 10_000, np.uint16)
        for alone in (False, True):
            results = engine.run(dn, np.zeros((size, 4, 2), np.float32), POOLINGS, alone=alone)
            for name, value in results.items():
                if value.shape != (size, *expected[name]) or value.dtype != np.float32:
                    raise EngineError(
                        f"the encoder's output {name} is {value.dtype} {value.shape}; "
                        f"expected float32 {(size, *expected[name])}"
                    )
                if not np.isfinite(value).all():
                    raise EngineError(f"the encoder's output {name} is not finite for a plain grey tile")


def arithmetic(engine: Engine) -> str:
    """What rounds its results: provider, runtime and kernels, numbers. Others differ in the last bits."""
    runtime = engine.runtime if engine.kernels is None else f"{engine.runtime}-{engine.kernels}"
    return f"{engine.provider}:{runtime}:{engine.precision}"
