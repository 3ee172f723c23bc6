"""The fp32 encoder computed in bf16 by OpenVINO, on CPUs that have instructions for it.

OpenVINO reads the same ONNX file as ONNX Runtime and rounds the products' factors itself. What lies between
the last product of a branch and an output stays in fp32: so does the residual stream, since the tokens are
an output (this is why all outputs stay in the model, whichever are wanted).

A model of any batch size gave some tiles another result in some batches. Of fixed sizes a tile's is bitwise
the same (tested), and they are a tenth faster. So there is one of the size of full batches, and one for
single tiles: what remains of a batch when it is cut.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "bf16"

_CPUINFO = Path("/proc/cpuinfo")
# As Linux calls them: AVX-512 and AMX on x86, and Arm's. With AVX-512 alone OpenVINO emulates bf16, slowly.
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class OpenVinoSession:
    """Compiled models of one encoder.

    Args:
        content: of the ONNX file.
        threads: of all runs together.
        streams: runs at once, which share the threads; `run` may be called by as many threads.
        fixed: tiles in a full batch; others are cut into such and single tiles.

    Raises:
        Exception: OpenVINO refuses the file; its errors are RuntimeError in practice.
    """

    def __init__(self, content: bytes, *, threads: int, streams: int, fixed: int) -> None:
        import openvino as ov

        core = ov.Core()
        options = {
            "INFERENCE_PRECISION_HINT": NUMBERS,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # the CPUs are shared with decoding, and with other processes
        }
        self._fixed = fixed
        self._idle: dict[int, SimpleQueue[Any]] = {}  # requests, by batch size
        model = core.read_model(content)
        self.outputs = tuple(output.any_name for output in model.outputs)
        types = {ov.Type.u16: "tensor(uint16)", ov.Type.f32: "tensor(float)"}  # as ONNX Runtime calls them
        self.inputs = {i.any_name: types.get(i.element_type, str(i.element_type)) for i in model.inputs}
        for size in {fixed, 1}:
            model = core.read_model(content)
            model.reshape({i.any_name: [size, *list(i.partial_shape)[1:]] for i in model.inputs})
            compiled = core.compile_model(model, "CPU", options)
            self._idle[size] = SimpleQueue()
            for _ in range(streams):
                self._idle[size].put(compiled.create_infer_request())

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """The outputs asked for, of the tiles dn uint16 (B, 7, 40, 40) with metadata float32 (B, 4, 2)."""
        parts: list[list[NDArray[np.float32]]] = []
        start = 0
        while start < len(dn):
            size = self._fixed if len(dn) - start >= self._fixed else 1
            piece = slice(start, start + size)
            parts.append(self._run(dn[piece], metadata[piece], outputs))
            start += size
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        idle = self._idle[len(dn)]
        request = idle.get()
        try:
            results = request.infer({"dn": dn, "metadata": metadata})
            return [results[name].copy() for name in outputs]  # the request's own memory is used again
        finally:
            idle.put(request)


def unusable() -> str | None:
    """Why bf16 cannot be had here; None where it can."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed; install landmoe[openvino], or choose 'exact'"
    if not has_bf16():
        return "this CPU has no instructions for bf16; choose 'exact'"
    return None


def has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU multiplies bf16 itself; where the system does not say, it is left to OpenVINO."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return True
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & _FLAGS)
