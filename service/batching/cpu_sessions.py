"""Sessions of an encoder on CPUs: of our own kernels, of ONNX Runtime, or of OpenVINO.

The kernels are the fastest where they can be had, so they are taken there; all give the same within the
tolerance of the numbers. Batches side by side have a session each: in one of ONNX Runtime that they share,
one takes the memory that the other has just freed, which lies in the other core's cache
(docs/performance-log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.config import ModelConfig
from model.native.session import NativeEncoder, NativeSession
from model.openvino_session import OpenVinoSession
from model.outputs import POOLINGS, ROUTING
from service.engine import EngineError

if TYPE_CHECKING:  # the kernels need no ONNX Runtime, whose import takes time and memory
    import onnxruntime as ort

Runtime = Literal["kernels", "onnxruntime", "openvino"]

# Tiles that are computed at once. The activations of four still fit the cache (docs/performance-log.md).
CHUNK = 4
# One run gains nothing from more threads: its matrices are small.
_MAX_ALONE_THREADS = 8

_INPUTS = {"dn": "tensor(uint16)", "metadata": "tensor(float)"}


class Session(Protocol):
    """What runs batches."""

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """The outputs asked for, of the tiles dn uint16 (B, 7, 40, 40) with metadata float32 (B, 4, 2)."""


@dataclass(frozen=True)
class Sessions:
    """Those of one encoder.

    `side_by_side` are as many as run at once, in one thread each, and `alone` is for a batch that has the
    machine to itself. `kernels` are the ones that compute, where they are our own.
    """

    side_by_side: list[Session]
    alone: Session
    gives_routing: bool
    kernels: str | None = None


class OrtSession:
    """ONNX Runtime's, which computes a batch chunk by chunk."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See `Session`."""
        chunks = [slice(start, start + CHUNK) for start in range(0, len(dn), CHUNK)]
        feeds = [{"dn": dn[chunk], "metadata": metadata[chunk]} for chunk in chunks]
        parts = [self._session.run(list(outputs), feed) for feed in feeds]
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]


def open_sessions(
    content: bytes, config: ModelConfig, runtime: Runtime, numbers: str, threads: int
) -> Sessions:
    """Opens a file in fp32.

    Args:
        content: of the file.
        config: of its encoder.
        runtime: which can be had here (providers.py).
        numbers: to compute in, fp32 or bf16.
        threads: of all runs together.

    Raises:
        EngineError: the file has other inputs or outputs than an encoder.
        Exception: the runtime refuses the file.
    """
    alone_threads = min(threads, _MAX_ALONE_THREADS)
    if runtime == "kernels":
        encoder = NativeEncoder(content, config, "fp32" if numbers == "fp32" else "bf16")
        own: list[Session] = [NativeSession(encoder, chunk=CHUNK, threads=1) for _ in range(threads)]
        alone = NativeSession(encoder, chunk=1, threads=alone_threads) if threads > 1 else own[0]
        return Sessions(own, alone, gives_routing=True, kernels=encoder.kernels)
    if runtime == "openvino":
        streams = _open_openvino(content, threads, streams=threads, fixed=CHUNK)
        alone = streams if threads == 1 else _open_openvino(content, alone_threads, streams=1, fixed=1)
        return Sessions([streams] * threads, alone, ROUTING in streams.outputs)
    from service.batching import providers

    def opened(count: int) -> ort.InferenceSession:
        session = providers.session(content, "cpu", count)
        check_signature(session)
        return session

    sessions = [opened(1) for _ in range(threads)]
    one_each: list[Session] = [OrtSession(session) for session in sessions]
    outputs = [output.name for output in sessions[0].get_outputs()]
    lone = one_each[0] if threads == 1 else OrtSession(opened(alone_threads))
    return Sessions(one_each, lone, ROUTING in outputs)


def check_signature(session: ort.InferenceSession) -> None:
    """Raises EngineError where a session's inputs and outputs are not an encoder's."""
    _check({i.name: i.type for i in session.get_inputs()}, [output.name for output in session.get_outputs()])


def _check(inputs: Mapping[str, str], outputs: Sequence[str]) -> None:
    if inputs != _INPUTS:
        raise EngineError(f"the encoder has the inputs {dict(inputs)}; expected {_INPUTS}")
    if missing := set(POOLINGS) - set(outputs):
        raise EngineError(f"the encoder lacks the outputs {', '.join(sorted(missing))}")


def _open_openvino(content: bytes, threads: int, *, streams: int, fixed: int) -> OpenVinoSession:
    session = OpenVinoSession(content, threads=threads, streams=streams, fixed=fixed)
    _check(session.inputs, session.outputs)
    return session
