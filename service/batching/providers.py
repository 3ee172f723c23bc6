"""Which device, numbers and runtime an encoder gets, and how ONNX Runtime is told so."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from model import openvino_session
from model.bundle import Bundle
from model.native import session as native
from service.batching.cpu_sessions import Runtime

if TYPE_CHECKING:  # imported where it runs: a CPU with kernels needs none of it
    import onnxruntime as ort

Provider = Literal["cpu", "cuda"]
Wanted = Literal["auto", "cpu", "cuda"]
Precision = Literal["exact", "fast"]
RUNTIME_NAMES: dict[Runtime, str] = {
    "kernels": "the kernels",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}

_ORT_NAMES: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_NUMBERS: dict[tuple[Precision, Provider], str] = {
    ("exact", "cpu"): "fp32",
    ("exact", "cuda"): "fp32",
    ("fast", "cpu"): openvino_session.NUMBERS,
    ("fast", "cuda"): "fp16",
}
_SPIN_US = "20"
# TF32 keeps 10 bits of the mantissa: not what exact promises, and too few for what the fp16 encoder keeps in
# fp32, the gates' logits above all.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


class ProviderError(RuntimeError):
    """The device or precision that was asked for cannot be had; says why."""


def candidates(wanted: Wanted) -> tuple[Provider, ...]:
    """The devices to try, in their order.

    Raises:
        ProviderError: CUDA was asked for, and ONNX Runtime was built without it.
    """
    if wanted == "cpu":
        return ("cpu",)
    built = "CUDAExecutionProvider" in built_for()
    if wanted == "auto" and not built:
        return ("cpu",)
    if not built:
        raise ProviderError(
            "LANDMOE_PROVIDER is 'cuda', but the installed ONNX Runtime has no CUDA; "
            "install landmoe[gpu] instead of landmoe[cpu], or choose 'auto' or 'cpu'"
        )
    return ("cuda",) if wanted == "cuda" else ("cuda", "cpu")


def built_for() -> list[str]:
    """What ONNX Runtime was built for; the build for CPUs is known without importing it."""
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return [_ORT_NAMES["cpu"]]
    import onnxruntime as ort

    return list(ort.get_available_providers())


def numbers(bundle: Bundle, precision: Precision, provider: Provider, *, kernels: bool = True) -> str:
    """The bundle's name of the numbers that a precision means on a device.

    Args:
        bundle: with the encoders.
        precision: that is asked for.
        provider: the device.
        kernels: whether a CPU may run our own (model/native).

    Raises:
        ProviderError: the bundle has no such encoder, or nothing here computes in these numbers.
    """
    name = _NUMBERS[precision, provider]
    if name == openvino_session.NUMBERS:  # of the file in fp32, which every bundle has
        without = native.unusable("bf16") if kernels else "landmoe's kernels are off (LANDMOE_KERNELS)"
        if without and (reason := openvino_session.unusable()):
            raise ProviderError(
                f"precision {precision!r} on {provider} is bf16, for which {without}, and {reason}"
            )
    elif name not in bundle.precisions:
        raise ProviderError(
            f"precision {precision!r} on {provider} needs an encoder in {name}; "
            f"bundle {bundle.name} has {', '.join(bundle.precisions)}"
        )
    return name


def runtime(numbers: str, provider: Provider, *, kernels: bool) -> Runtime:
    """What computes in these numbers, which `numbers` has found possible; our own kernels where they may."""
    if provider == "cpu" and kernels and native.unusable("fp32" if numbers == "fp32" else "bf16") is None:
        return "kernels"
    return "openvino" if numbers == openvino_session.NUMBERS else "onnxruntime"


def session(
    content: bytes, provider: Provider, threads: int, *, graphs: bool = False
) -> ort.InferenceSession:
    """A session that runs on this device and on no other.

    Args:
        content: of the ONNX file.
        provider: the device.
        threads: that one run uses, its caller included.
        graphs: whether CUDA records the launches of a run to replay them (device_session.py).

    Raises:
        ProviderError: ONNX Runtime cannot use the device, or is not installed.
        Exception: it refuses the file; its exceptions share no base class.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:  # neither extra is asked for by a plain `pip install landmoe`
        raise ProviderError("ONNX Runtime is not installed; install landmoe[cpu] or landmoe[gpu]") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about graph details help no operator
    # Between two operators a thread that sleeps is late, and one that spins takes the core from whatever else
    # runs here. A short while is both by little (docs/performance-log.md).
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    wanted: Sequence[Any]
    if provider == "cuda":
        ort.preload_dlls()  # CUDA's libraries as pip installs them, where they are not the system's
        cuda = _CUDA_OPTIONS | {"enable_cuda_graph": "1" if graphs else "0"}
        wanted = [(_ORT_NAMES["cuda"], cuda), _ORT_NAMES["cpu"]]
    else:
        wanted = [_ORT_NAMES["cpu"]]
    made = ort.InferenceSession(content, options, providers=wanted)
    # Where the device is missing, ONNX Runtime says so in its log and goes on without it.
    if made.get_providers()[0] != _ORT_NAMES[provider]:
        raise ProviderError(
            f"ONNX Runtime cannot use {provider} here: no such device, or its driver or libraries are "
            f"missing or too old; it offers {', '.join(made.get_providers())}"
        )
    return made


def bucket_sizes(largest: int) -> tuple[int, ...]:
    """Batch sizes to pad to: powers of two, and the largest itself."""
    powers = [2**n for n in range(largest.bit_length())]
    return (*powers, largest) if powers[-1] < largest else tuple(powers)
