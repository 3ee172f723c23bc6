"""A session on a GPU: fixed places for inputs and outputs, a few fixed batch sizes, recorded launches.

Each batch size has its own buffers on the device, so a run allocates nothing, moves only the inputs in and
the outputs asked for out, and its kernels see the same addresses every time. That is what CUDA graphs need:
the launches of a batch size are recorded once (by `gpu_graph_id`, one for each size) and replayed as one,
instead of some hundreds that cost more than what they start while batches are small.

ONNX Runtime keeps graphs by thread and forbids running a session that has them from several, so everything
happens in one thread of the session's own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from service.batching.providers import ProviderError

log = structlog.get_logger()

Device = Literal["cuda", "cpu"]  # cpu: the same path without a GPU, for tests
T = TypeVar("T")
_RUNS_UNTIL_REPLAY = 3  # one allocates, one records, one replays


class DeviceSession:
    """Runs batches in a thread of its own, padded to the next of the fixed sizes.

    Args:
        make: makes the ONNX Runtime session, on `device`.
        device: where the buffers lie.
        batch_sizes: ascending; a larger batch is run in parts.
        graphs: whether `make` has enabled CUDA graphs.

    Raises:
        Exception: what `make` raises, or ONNX Runtime, whose exceptions share no base class.
    """

    def __init__(
        self,
        make: Callable[[], ort.InferenceSession],
        device: Device,
        batch_sizes: Sequence[int],
        *,
        graphs: bool,
    ) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # A daemon: one that hangs in the driver must not keep the process from exiting.
        threading.Thread(target=_work, args=(self._jobs,), name="device", daemon=True).start()
        weakref.finalize(self, self._jobs.put, None)
        self.graphs = graphs
        self._held = self._call(lambda: _Held(make(), device, batch_sizes, graphs))

    @property
    def outputs(self) -> list[str]:
        """Names of what it gives."""
        return [output.name for output in self.session.get_outputs()]

    @property
    def session(self) -> ort.InferenceSession:
        """For looking at its inputs and outputs."""
        return self._held.session

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """The outputs asked for, of the batch without its padding."""
        held = self._held
        return self._call(lambda: held.run(dn, metadata, outputs))

    def _call(self, function: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._jobs.put((function, future))
        return future.result()


def open_session(
    make: Callable[[bool], ort.InferenceSession], device: Device, batch_sizes: Sequence[int]
) -> DeviceSession:
    """A session with CUDA graphs where these work and change nothing, else without.

    Args:
        make: makes the session, with graphs enabled or not.
        device: see `DeviceSession`.
        batch_sizes: ascending.

    Raises:
        ProviderError: there is no such device.
        Exception: there is no session without graphs either.
    """
    try:
        session = DeviceSession(lambda: make(True), device, batch_sizes, graphs=True)
        if _replays(session, batch_sizes[0]):
            return session
        reason = "a replayed run gives other values than the first"
    except ProviderError:
        raise  # no such device: graphs are not what is wrong
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0]
    log.warning("CUDA graphs not used", reason=reason)
    return DeviceSession(lambda: make(False), device, batch_sizes, graphs=False)


class _Held:
    """The session and its buffers; used in the session's thread only."""

    def __init__(
        self, session: ort.InferenceSession, device: Device, batch_sizes: Sequence[int], graphs: bool
    ) -> None:
        self.session = session
        self._largest = batch_sizes[-1]
        self._buffers = {
            size: _Buffers(session, device, size, number if graphs else None)
            for number, size in enumerate(batch_sizes, start=1)  # 0 is ONNX Runtime's own
        }

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        parts = []
        for start in range(0, len(dn), self._largest):
            part = slice(start, start + self._largest)
            count = len(dn[part])
            size = next(size for size in self._buffers if size >= count)
            values = self._buffers[size].run(_pad(dn[part], size), _pad(metadata[part], size), outputs)
            parts.append([value[:count] for value in values])
        return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]


class _Buffers:
    """What one batch size needs: inputs and all outputs on the device, bound once."""

    def __init__(self, session: ort.InferenceSession, device: Device, size: int, graph: int | None) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._options = ort.RunOptions()
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))
        types = {"tensor(uint16)": np.uint16, "tensor(float)": np.float32}

        def place(value: Any) -> ort.OrtValue:
            shape = [size, *value.shape[1:]]
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, types[value.type], device)

        self._inputs = {value.name: place(value) for value in session.get_inputs()}
        self._outputs = {value.name: place(value) for value in session.get_outputs()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        self._inputs["dn"].update_inplace(dn)
        self._inputs["metadata"].update_inplace(metadata)
        self._session.run_with_iobinding(self._binding, self._options)
        # On the CPU, `numpy` shows the buffer itself, which the next run overwrites.
        return [np.array(self._outputs[name].numpy()) for name in outputs]


def _pad(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Fills a batch up by repeating its last tile."""
    if len(values) == size:
        return np.ascontiguousarray(values)
    return np.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1), mode="edge")


def _replays(session: DeviceSession, size: int) -> bool:
    """Whether a recorded run gives the same for the same tiles, and other values for others."""
    dn, metadata = session.session.get_inputs()
    rng = np.random.default_rng(0)
    encodings = rng.uniform(-1, 1, (size, *metadata.shape[1:])).astype(np.float32)
    tiles = [rng.integers(7_000, 20_000, (size, *dn.shape[1:]), dtype=np.uint16) for _ in range(2)]
    names = ("mean",)
    first, *again = (session.run(tiles[0], encodings, names)[0] for _ in range(_RUNS_UNTIL_REPLAY))
    other = session.run(tiles[1], encodings, names)[0]
    back = session.run(tiles[0], encodings, names)[0]
    near = 1e-4 * float(np.abs(first).max())
    same = [bool(np.abs(each - first).max() <= near) for each in (*again, back)]
    return all(same) and not np.array_equal(first, other)


def _work(jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    while (job := jobs.get()) is not None:
        function, future = job
        try:
            future.set_result(function())
        except BaseException as error:  # whoever waits decides what it means
            future.set_exception(error)
        del job, function, future  # an idle thread keeps neither a batch nor the session in memory
