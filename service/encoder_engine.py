"""The encoder on the device that there is, in the precision that is asked for."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from model import bundle as bundles
from model.bundle import Bundle, BundleError
from model.native.session import KernelsError, LayoutError
from model.outputs import ROUTING
from service.batching import cpu, cpu_sessions, providers
from service.batching.cpu_sessions import Runtime, Session, Sessions
from service.batching.providers import Precision, Provider, ProviderError
from service.engine import EngineError, warm_up
from service.settings import Settings

if TYPE_CHECKING:
    import onnxruntime as ort

log = structlog.get_logger()

# Tiles in a batch beyond which it gets no faster. A CPU runs it in chunks, one after the other: what more
# saves is the way to the engine's thread and back, and the caches that this empties. A GPU is filled by many.
_CPU_BATCH_SIZE = 16
_GPU_BATCH_SIZE = 64


class EncoderEngine:
    """Sessions of one encoder.

    On a CPU, as many batches run at once as there are CPUs, each in one thread, and a session of all of
    them is for a batch that is alone (cpu_sessions.py). On a GPU, batches are padded to a few fixed sizes
    (device_session.py).

    Args:
        bundle: whose encoder to run.
        precision: `exact` (fp32), or `fast` (as the device and the bundle offer it).
        threads: of all runs together.
        provider: the device.
        max_batch_size: tiles in a batch at most; decides the padded sizes. None for the device's best.
        kernels: whether a CPU may run our own (model/native), where it can.

    Raises:
        BundleError: the bundle's file is not the verified one.
        ProviderError: the bundle has no encoder of this precision, or the device cannot be used.
        EngineError: the runtime refuses the file.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "exact",
        threads: int = 1,
        provider: Provider = "cpu",
        max_batch_size: int | None = None,
        *,
        kernels: bool = True,
    ) -> None:
        self.bundle = bundle
        self.provider: Provider = provider
        self.precision = providers.numbers(bundle, precision, provider, kernels=kernels)
        self.runtime: Runtime = providers.runtime(self.precision, provider, kernels=kernels)
        self.threads = threads
        self.concurrency = threads if provider == "cpu" else 1
        self.batch_size = _CPU_BATCH_SIZE if provider == "cpu" else _GPU_BATCH_SIZE
        self.chunk_size = cpu_sessions.CHUNK if provider == "cpu" else self.batch_size
        self.buckets = () if provider == "cpu" else providers.bucket_sizes(max_batch_size or self.batch_size)
        self._path = bundle.encoder_path(self.precision)
        # Kept open: a restart needs it again, though the bundle was replaced or removed meanwhile.
        self._file = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._take(self._make_sessions())

    @property
    def kernels(self) -> str | None:
        """Which of our own, see `Engine.kernels`."""
        return self._sessions.kernels

    @property
    def gives_routing(self) -> bool:
        """Whether it has the output `ROUTING`, which bundles lack that were exported before there was one."""
        return self._sessions.gives_routing

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
                values = session.run(dn, metadata, outputs)
            except Exception as error:  # ONNX Runtime's exceptions share no base class
                raise EngineError(f"{self._name} failed on {len(dn)} tiles: {_first_line(error)}") from error
        return dict(zip(outputs, values, strict=True))

    def restart(self) -> None:
        """Makes new sessions; runs under way keep the ones they have."""
        try:
            self._take(self._make_sessions())
        except (BundleError, OSError) as error:
            raise EngineError(str(error)) from error
        warm_up(self, self.buckets[::-1] or (1,))

    @contextmanager
    def _session(self, alone: bool) -> Iterator[Session]:
        if alone:
            yield self._sessions.alone
            return
        idle = self._idle  # that of a restart is another
        try:
            session = idle.pop()
        except IndexError:  # more callers than `concurrency`
            yield self._sessions.side_by_side[0]
            return
        try:
            yield session
        finally:
            idle.append(session)  # the one taken next: its memory is still in the caches

    def _take(self, sessions: Sessions) -> None:
        self._sessions, self._idle = sessions, list(sessions.side_by_side)

    def _make_sessions(self) -> Sessions:
        # What was hashed is what runs: the sessions are made from these bytes, not from the path again.
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if hashlib.sha256(content).hexdigest() != self.bundle.encoder_digest(self.precision):
            raise BundleError(f"{self._path} has changed since the bundle was verified")
        try:
            if self.provider == "cuda":
                return self._on_device(content)
            return self._on_cpu(content)
        except (ProviderError, EngineError):
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineError(f"{self._name} cannot use {self._path}: {_first_line(error)}") from error

    def _on_cpu(self, content: bytes) -> Sessions:
        config, numbers = self.bundle.config, self.precision
        if self.runtime == "kernels":
            try:
                return cpu_sessions.open_sessions(content, config, "kernels", numbers, self.threads)
            except (LayoutError, KernelsError) as error:  # another graph, or a larger one: others can run it
                self.runtime = providers.runtime(numbers, "cpu", kernels=False)
                log.warning("kernels not used", reason=str(error), instead=self.runtime)
        return cpu_sessions.open_sessions(content, config, self.runtime, numbers, self.threads)

    def _on_device(self, content: bytes) -> Sessions:
        from service.batching.device_session import open_session

        def opened(graphs: bool) -> ort.InferenceSession:
            session = providers.session(content, "cuda", 1, graphs=graphs)
            cpu_sessions.check_signature(session)
            return session

        bound = open_session(opened, "cuda", self.buckets)
        return Sessions([bound], bound, ROUTING in bound.outputs)

    @property
    def _name(self) -> str:
        return providers.RUNTIME_NAMES[self.runtime]


def make_engine(settings: Settings, digest: str | None = None) -> EncoderEngine:
    """The engine that the settings ask for, every batch size that it will be given warmed up.

    Args:
        settings: which bundle, and how it is computed.
        digest: of the bundle that others serve behind the same address; no other is taken.

    Raises:
        BundleError, EngineError: the bundle, its encoder or the device cannot be used.
    """
    threads = settings.engine_threads or max(1, cpu.available() // settings.workers)
    bundle = bundles.load(settings.bundle)
    if digest is not None and bundle.digest != digest:
        raise EngineError(
            f"the bundle has changed since the service was started: its digest is {bundle.digest}, expected "
            f"{digest}; restart the service to serve the new one"
        )

    def on(provider: Provider) -> EncoderEngine:
        return EncoderEngine(
            bundle, settings.precision, threads, provider, settings.max_batch_size, kernels=settings.kernels
        )

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


def check_engine(settings: Settings) -> str:
    """What can be said about the engine of the settings without making it; raises as `make_engine`.

    Returns:
        The bundle's digest.
    """
    bundle = bundles.load(settings.bundle)
    try:
        device = providers.candidates(settings.provider)[-1]
        providers.numbers(bundle, settings.precision, device, kernels=settings.kernels)
    except ProviderError as error:
        raise EngineError(str(error)) from error
    return bundle.digest


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
