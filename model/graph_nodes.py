"""Nodes and constants of an ONNX graph that is being written, in fp32 or fp16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.fused import Array, Product

LARGEST_HALF = float(np.finfo(np.float16).max)


class GraphError(ValueError):
    """A weight that the wanted numbers cannot hold."""


class GraphNodes:
    """Nodes in order, and constants, which are stored once each."""

    def __init__(self, half: bool) -> None:
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.written: set[str] = set()  # outputs of the nodes

    def node(self, op: str, inputs: list[str], name: str, *outputs: str, **attributes: Any) -> str:
        """Adds a node; its first output is called as the node unless named."""
        self.nodes.append(helper.make_node(op, inputs, list(outputs or (name,)), name=name, **attributes))
        self.written.update(outputs or (name,))
        return outputs[0] if outputs else name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Stores a constant, the first time that it is named."""
        self.constants.setdefault(name, value)
        return name

    def shape(self, *dims: int) -> str:
        """Dimensions for `Reshape`, or sizes for `Split`."""
        return self.constant("shape." + "x".join(map(str, dims)), np.array(dims, np.int64))

    def axis(self, axis: int) -> str:
        """One axis, for operators that take it as an input."""
        return self.constant(f"axis.{axis}", np.array([axis], np.int64))

    def gemm(self, x: str, product: Product, name: str) -> str:
        """X @ weight + bias, in the numbers that `narrow` gives."""
        weight = self.weight(f"{name}.weight", product.weight)
        return self.node("Gemm", [x, weight, self.weight(f"{name}.bias", product.bias)], name)

    def weight(self, name: str, value: Array) -> str:
        """A constant in the numbers that `narrow` gives; raises GraphError where they cannot hold it."""
        if not self.half:
            return self.constant(name, value)
        if (largest := float(np.abs(value).max(initial=0))) > LARGEST_HALF:
            raise GraphError(f"{name} reaches {largest:g}; fp16 ends at {LARGEST_HALF:g}")
        return self.constant(name, value.astype(np.float16))

    def narrow(self, x: str) -> str:
        """fp32 into the numbers that products are computed in."""
        return self.node("Cast", [x], f"{x}.half", to=TensorProto.FLOAT16) if self.half else x

    def widen(self, x: str) -> str:
        """The inverse of `narrow`."""
        return self.node("Cast", [x], f"{x}.single", to=TensorProto.FLOAT) if self.half else x

    def normalise(self, x: str, epsilon: float, name: str, width: int) -> str:
        """LayerNorm without scale and shift; the operator wants a scale, so it gets ones."""
        ones = self.constant("ones", np.ones(width, np.float32))
        return self.node("LayerNormalization", [x, ones], name, axis=-1, epsilon=epsilon)

    def split(self, x: str, sizes: list[int], name: str, parts: tuple[str, ...], axis: int) -> list[str]:
        """Cuts along an axis; the parts are called after the node."""
        outputs = [f"{name}.{part}" for part in parts]
        self.node("Split", [x, self.shape(*sizes)], name, *outputs, axis=axis)
        return outputs
