"""Products of matrices by the libraries that are installed, of which gemm_peak.py takes the best.

In the shapes of the network at a batch of four tiles, and in larger ones. Several libraries, since on some
CPUs a BLAS does without their widest instructions: on an EPYC with AVX-512 NumPy's and PyTorch's reach half
of what ONNX Runtime does. PyTorch's are a kind of their own: a network in PyTorch has no others.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Products = tuple[str, float, Sequence[Callable[[], Any]]]
"""Their kind (`fp32`, `bf16`, `torch`), operations of a call, and a call for each thread."""

# (rows, inner, columns). Rows of four tiles with the two widest products of size S, then squares.
SHAPES = ((420, 144, 288), (420, 144, 720), (512, 512, 512), (768, 768, 768))
# (rows, width) of products in a chain, so that what is converted on the way in and out counts little.
_CHAINS = ((420, 144), (420, 288), (420, 768), (512, 512))
_CHAIN_LENGTH = 8
_FOR_ONNXRUNTIME = ("onnx", "onnxruntime")  # onnx writes the product that ONNX Runtime is to compute


def every(threads: int) -> list[Products]:
    """Of all libraries that are installed.

    Args:
        threads: that multiply at once, each matrices of its own.
    """
    made = of_numpy(threads)
    for packages, make in (
        (_FOR_ONNXRUNTIME, of_onnxruntime),
        (("openvino",), of_openvino),
        (("torch",), of_torch),
    ):
        if _installed(packages):
            made += make(threads)
    return made


def missing() -> dict[str, str]:
    """What an environment for serving lacks for an fp32 rate that holds on every CPU, and what that means."""
    if _installed(_FOR_ONNXRUNTIME):
        return {}
    return {
        "products in ONNX Runtime": "onnx is not installed; the fp32 rate is NumPy's, half of it on some CPUs"
    }


def of_numpy(threads: int) -> list[Products]:
    """Of its BLAS, in fp32."""

    def product(rows: int, inner: int, columns: int) -> Callable[[], Any]:
        left, right, out = _random(rows, inner), _random(inner, columns), _random(rows, columns)
        return lambda: np.matmul(left, right, out=out)

    return _of_shapes("fp32", product, threads)


def of_onnxruntime(threads: int) -> list[Products]:
    """In fp32, of a constant matrix."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def product(rows: int, inner: int, columns: int) -> Callable[[], Any]:
        right = numpy_helper.from_array(_random(inner, columns), "right")
        left, out = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("left", (rows, inner)), ("out", (rows, columns)))
        )
        node = helper.make_node("MatMul", ["left", "right"], ["out"])
        graph = helper.make_graph([node], "product", [left], [out], [right])
        opset = helper.make_opsetid("", 17)
        content = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        bound = session.io_binding()
        bound.bind_ortvalue_input("left", ort.OrtValue.ortvalue_from_numpy(_random(rows, inner)))
        bound.bind_ortvalue_output("out", ort.OrtValue.ortvalue_from_numpy(_random(rows, columns)))
        return lambda: session.run_with_iobinding(bound)

    return _of_shapes("fp32", product, threads)


def of_torch(threads: int) -> list[Products]:
    """In fp32, as a network in PyTorch has them."""
    import torch

    def product(rows: int, inner: int, columns: int) -> Callable[[], Any]:
        left, right, out = map(
            torch.from_numpy, (_random(rows, inner), _random(inner, columns), _random(rows, columns))
        )
        return lambda: torch.matmul(left, right, out=out)

    return _of_shapes("torch", product, threads)


def of_openvino(threads: int) -> list[Products]:
    """In bf16; none on a CPU without instructions for it."""
    import openvino as ov
    from openvino import opset13 as ops

    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return []
    options = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    products: list[Products] = []
    for rows, width in _CHAINS:
        first = ops.parameter([rows, width], ov.Type.f32)
        last = first
        for _ in range(_CHAIN_LENGTH):
            last = ops.matmul(last, ops.constant(_random(width, width)), False, False)
        compiled = core.compile_model(ov.Model([last], [first]), "CPU", options)
        requests = [compiled.create_infer_request() for _ in range(threads)]
        for request in requests:
            request.set_input_tensor(ov.Tensor(_random(rows, width)))
        calls = [request.infer for request in requests]
        products.append(("bf16", 2 * _CHAIN_LENGTH * rows * width * width, calls))
    return products


def _installed(packages: Sequence[str]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


def _of_shapes(
    kind: str, product: Callable[[int, int, int], Callable[[], Any]], threads: int
) -> list[Products]:
    return [
        (kind, 2 * rows * inner * columns, [product(rows, inner, columns) for _ in range(threads)])
        for rows, inner, columns in SHAPES
    ]


def _random(rows: int, columns: int) -> NDArray[np.float32]:
    # Of variance 1 / width, so that a chain of products neither grows nor fades.
    values = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    return values / np.float32(columns**0.5)
