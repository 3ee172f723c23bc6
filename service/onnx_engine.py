"""The encoder in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from model import bundle as bundles
from model import openvino_session
from model.bundle import Bundle, BundleError
from model.openvino_session import OpenVinoSession
from service.batching import cpu, providers
from service.batching.device_session import DeviceSession, bucket_sizes, open_session
from service.batching.providers import Precision, Provider, ProviderError
from service.engine import OUTPUTS, ROUTING, EngineError, warm_up
from service.settings import Settings

log = structlog.get_logger()

# Tiles that are computed at once. On a CPU the activations of four still fit the cache (docs/performance.md).
_CPU_CHUNK = 4
# Tiles in a batch beyond which it gets no faster. A CPU runs it in chunks, one after the other: what more
# saves is the way to the engine's thread and back, and the caches that this empties. A GPU is filled by many.
_CPU_BATCH_SIZE = 16
_GPU_BATCH_SIZE = 64
# One run gains nothing from more threads: its matrices are small.
_MAX_ALONE_THREADS = 8

_Session: TypeAlias = ort.InferenceSession | DeviceSession | OpenVinoSession


class OnnxEngine:
    """Sessions of one encoder: of OpenVINO for bf16, of ONNX Runtime for all other numbers.

    On a CPU, as many batches run at once as there are CPUs, each in one thread, and a session of all of
    them is for a batch that is alone. Batches of ONNX Runtime have a session each: in one that they share,
    one takes the memory that the other has just freed, which lies in the other core's cache
    (docs/performance.md). On a GPU, batches are padded to a few fixed sizes (device_session.py).

    Args:
        bundle: whose encoder to run.
        precision: `exact` (fp32), or `fast` (as the device and the bundle offer it).
        threads: of all runs together.
        provider: the device.
        max_batch_size: tiles in a batch at most; decides the padded sizes. None for the device's best.

    Raises:
        BundleError: the bundle's file is not the verified one.
        ProviderError: the bundle has no encoder of this precision, or the device cannot be used.
        EngineError: ONNX Runtime refuses the file.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "exact",
        threads: int = 1,
        provider: Provider = "cpu",
        max_batch_size: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.provider: Provider = provider
        self.precision = providers.numbers(bundle, precision, provider)
        self.threads = threads
        self.concurrency = threads if provider == "cpu" else 1
        self.batch_size = _CPU_BATCH_SIZE if provider == "cpu" else _GPU_BATCH_SIZE
        self.chunk_size = _CPU_CHUNK if provider == "cpu" else self.batch_size
        self.buckets = () if provider == "cpu" else bucket_sizes(max_batch_size or self.batch_size)
        self._path = bundle.encoder_path(self.precision)
        # Kept open: a restart needs it again, though the bundle was replaced or removed meanwhile.
        self._file = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        # Bundles that were exported before there was this output lack it.
        self.gives_routing = False
        self._idle, self._alone_session = self._make_sessions()
        self._any = self._idle[0]

    def run(
        self,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: Sequence[str],
        *,
        alone: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Embeds a batch, see `Engine.run`."""
        with self._session(alone) as session:
            try:
                if isinstance(session, ort.InferenceSession):
                    values = self._run_chunks(session, dn, metadata, list(outputs))
                else:
                    values = session.run(dn, metadata, outputs)
            except Exception as error:
                raise EngineError(
                    f"{self._runtime} failed on {len(dn)} tiles: {_first_line(error)}"
                ) from error
        return dict(zip(outputs, values, strict=True))

    def restart(self) -> None:
        """Makes new sessions; runs under way keep the ones they have."""
        try:
            self._idle, self._alone_session = self._make_sessions()
        except (BundleError, OSError) as error:
            raise EngineError(str(error)) from error
        self._any = self._idle[0]
        warm_up(self, self.buckets[::-1] or (1,))

    @contextmanager
    def _session(self, alone: bool) -> Iterator[_Session]:
        if alone:
            yield self._alone_session
            return
        idle = self._idle  # that of a restart is another
        try:
            session = idle.pop()
        except IndexError:  # more callers than `concurrency`
            yield self._any
            return
        try:
            yield session
        finally:
            idle.append(session)  # the one taken next: its memory is still in the caches

    def _run_chunks(
        self,
        session: ort.InferenceSession,
        dn: NDArray[np.uint16],
        metadata: NDArray[np.float32],
        outputs: list[str],
    ) -> list[NDArray[np.float32]]:
        chunks = [slice(start, start + self.chunk_size) for start in range(0, len(dn), self.chunk_size)]
        parts = [session.run(outputs, {"dn": dn[chunk], "metadata": metadata[chunk]}) for chunk in chunks]
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _make_sessions(self) -> tuple[list[_Session], _Session]:
        """Those for batches side by side, and the one for a batch that is alone."""
        # What was hashed is what runs: the sessions are made from these bytes, not from the path again.
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if hashlib.sha256(content).hexdigest() != self.bundle.encoder_digest(self.precision):
            raise BundleError(f"{self._path} has changed since the bundle was verified")
        try:
            if self.provider == "cuda":
                bound = open_session(lambda graphs: self._open(content, 1, graphs), "cuda", self.buckets)
                return [bound], bound
            alone_threads = min(self.threads, _MAX_ALONE_THREADS)
            if self.precision == openvino_session.NUMBERS:
                streams = self._open_openvino(
                    content, self.threads, streams=self.threads, fixed=self.chunk_size
                )
                if self.threads == 1:
                    return [streams], streams
                lone = self._open_openvino(content, alone_threads, streams=1, fixed=1)
                return [streams] * self.threads, lone
            sessions: list[_Session] = [self._open(content, 1) for _ in range(self.threads)]
            return sessions, sessions[0] if self.threads == 1 else self._open(content, alone_threads)
        except (ProviderError, EngineError):
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineError(f"{self._runtime} cannot use {self._path}: {_first_line(error)}") from error

    @property
    def _runtime(self) -> str:
        return "OpenVINO" if self.precision == openvino_session.NUMBERS else "ONNX Runtime"

    def _open_openvino(self, content: bytes, threads: int, *, streams: int, fixed: int) -> OpenVinoSession:
        session = OpenVinoSession(content, threads=threads, streams=streams, fixed=fixed)
        _check_signature(session.inputs, session.outputs, str(self._path))
        self.gives_routing = ROUTING in session.outputs
        return session

    def _open(self, content: bytes, threads: int, graphs: bool = False) -> ort.InferenceSession:
        session = providers.session(content, self.provider, threads, graphs=graphs)
        inputs = {i.name: i.type for i in session.get_inputs()}
        outputs = [output.name for output in session.get_outputs()]
        _check_signature(inputs, outputs, str(self._path))
        self.gives_routing = ROUTING in outputs
        return session


def make_engine(settings: Settings) -> OnnxEngine:
    """The engine that the settings ask for, every batch size that it will be given warmed up.

    Raises:
        BundleError, EngineError: the bundle, its encoder or the device cannot be used.
    """
    threads = settings.engine_threads or max(1, cpu.available() // settings.workers)
    bundle = bundles.load(settings.bundle)

    def on(provider: Provider) -> OnnxEngine:
        return OnnxEngine(bundle, settings.precision, threads, provider, settings.max_batch_size)

    try:
        *preferred, last = providers.candidates(settings.provider)
        for provider in preferred:
            try:
                engine = on(provider)
                break
            except ProviderError as error:
                log.warning("device not used", provider=provider, reason=str(error))
        else:
            engine = on(last)
    except ProviderError as error:
        raise EngineError(str(error)) from error
    # On a GPU the largest first: the smaller ones then find memory that is there already.
    warm_up(engine, engine.buckets[::-1] or (1, settings.max_batch_size or engine.batch_size))
    return engine


def check_engine(settings: Settings) -> None:
    """What can be said about the engine of the settings without making it; raises as `make_engine`."""
    bundle = bundles.load(settings.bundle)
    try:
        providers.numbers(bundle, settings.precision, providers.candidates(settings.provider)[-1])
    except ProviderError as error:
        raise EngineError(str(error)) from error


def _check_signature(inputs: Mapping[str, str], outputs: Sequence[str], path: str) -> None:
    expected = {"dn": "tensor(uint16)", "metadata": "tensor(float)"}
    if inputs != expected:
        raise EngineError(f"{path} has the inputs {dict(inputs)}; expected {expected}")
    if missing := set(OUTPUTS) - set(outputs):
        raise EngineError(f"{path} lacks the outputs {', '.join(sorted(missing))}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
