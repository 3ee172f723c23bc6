"""The encoder in ONNX Runtime: prepared tiles in, the outputs asked for out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model import bundle as bundles
from model.bundle import Bundle, BundleError
from service import cpu
from service.settings import Settings

OUTPUTS = ("mean", "cls", "patch_mean", "patch_mean_std", "tokens")
PRECISIONS = {"exact": "fp32"}  # name of the setting → name of the bundle's file
PROVIDERS = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}


class EngineError(RuntimeError):
    """The engine could not be started, or gave no usable result; says why."""


class Engine(Protocol):
    """What the service needs of an engine. `run` is called from one thread at a time."""

    @property
    def bundle(self) -> Bundle:
        """Whose encoder runs."""

    @property
    def precision(self) -> str:
        """The numbers it computes in: the bundle's name for them, such as fp32."""

    @property
    def provider(self) -> str:
        """What it runs on: cpu or cuda."""

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Embeds a batch.

        Args:
            dn: uint16 (B, 7, 40, 40), invalid pixels already filled.
            metadata: float32 (B, 4, 2), (week, hour, lat, lon) x (sin, cos).
            outputs: those of `OUTPUTS` to compute.

        Returns:
            float32: mean, cls, patch_mean (B, m); patch_mean_std (B, 2m); tokens (B, 105, m).

        Raises:
            EngineError: no finite result.
        """


class OnnxEngine:
    """One ONNX Runtime session on the CPU.

    Args:
        bundle: whose encoder to run.
        precision: `exact` (fp32).
        threads: of the session, its caller included.

    Raises:
        BundleError: the bundle has no encoder of this precision, or its file is not the verified one.
        EngineError: ONNX Runtime refuses the file.
    """

    def __init__(self, bundle: Bundle, precision: str = "exact", threads: int = 1) -> None:
        self.bundle = bundle
        self.precision = PRECISIONS[precision]
        self.threads = threads
        path = bundle.encoder_path(self.precision)
        # What was hashed is what runs: the session is made from these bytes, not from the path again.
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != bundle.encoder_digest(self.precision):
            raise BundleError(f"{path} has changed since the bundle was verified")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores that decoding and the event loop run on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; warnings about graph details help no operator
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineError(f"ONNX Runtime cannot use {path}: {_first_line(error)}") from error
        self.provider = PROVIDERS.get(self._session.get_providers()[0], "cpu")
        _check_signature(self._session, str(path))

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Embeds a batch, see `Engine.run`."""
        try:
            values = self._session.run(list(outputs), {"dn": dn, "metadata": metadata})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on {len(dn)} tiles: {_first_line(error)}") from error
        results: dict[str, NDArray[np.float32]] = dict(zip(outputs, values, strict=True))
        for name, value in results.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the encoder's output {name} is not finite for a batch of {len(dn)} tiles")
        return results


def make_engine(settings: Settings) -> OnnxEngine:
    """The engine that the settings ask for, warmed up.

    Raises:
        BundleError, EngineError: the bundle or its encoder cannot be used.
    """
    threads = settings.engine_threads or max(1, cpu.available() // settings.workers)
    engine = OnnxEngine(bundles.load(settings.bundle), settings.precision, threads)
    warm_up(engine, (1, settings.max_batch_size))
    return engine


def warm_up(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """Runs every batch size once, so that no request pays for the first one's allocations.

    Raises:
        EngineError: the encoder cannot be run, or its outputs are not what its configuration says.
    """
    config = engine.bundle.config
    side, m, tokens = config.image_size, config.embed_dim, config.num_tokens
    shapes = {
        "mean": (m,),
        "cls": (m,),
        "patch_mean": (m,),
        "patch_mean_std": (2 * m,),
        "tokens": (tokens, m),
    }
    for size in batch_sizes:
        dn = np.full((size, config.in_channels, side, side), 10_000, np.uint16)
        results = engine.run(dn, np.zeros((size, 4, 2), np.float32), OUTPUTS)
        for name, value in results.items():
            if value.shape != (size, *shapes[name]) or value.dtype != np.float32:
                raise EngineError(
                    f"the encoder's output {name} is {value.dtype} {value.shape}; "
                    f"expected float32 {(size, *shapes[name])}"
                )


def _check_signature(session: ort.InferenceSession, path: str) -> None:
    inputs = {i.name: i.type for i in session.get_inputs()}
    expected = {"dn": "tensor(uint16)", "metadata": "tensor(float)"}
    if inputs != expected:
        raise EngineError(f"{path} has the inputs {inputs}; expected {expected}")
    missing = set(OUTPUTS) - {o.name for o in session.get_outputs()}
    if missing:
        raise EngineError(f"{path} lacks the outputs {', '.join(sorted(missing))}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
