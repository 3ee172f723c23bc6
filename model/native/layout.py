"""The encoder's weights as the native kernels read them: padded, and in panels (encoder.h).

They come from the ONNX file in fp32, so that whatever runs, runs the bundle's one verified file. Its graph
has to be the one that graph.py writes: the names and operators below are those by which an order of columns
can be told from another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model import onnx_file
from model.config import NUM_EXTRA_TOKENS, ModelConfig
from model.onnx_file import OnnxFile, OnnxFileError

# fp32: with AVX-512; avx2: fp32 too, without; amx: bf16 too, in tiles of registers.
Kernels = Literal["fp32", "avx2", "bf16", "amx"]
Array = NDArray[np.float32]

LANES, PANEL = 16, 48
AVX2_LANES, AVX2_PANEL = 8, 16
LINE = 64  # bytes
# Of each layer: queries by column, all heads of a group side by side; of experts the chosen ones.
_NODES = {
    "norm1": "LayerNormalization", "qkv": "Gemm", "by_column": "Transpose", "queries": "Reshape",
    "scores": "MatMul", "exp": "Exp", "values": "MatMul", "value_tokens": "Transpose", "out": "Gemm",
    "norm2": "LayerNormalization", "experts_w": "Gemm", "experts_v": "Gemm", "logits": "Gemm", "top": "TopK",
    "gates": "Softmax", "sigmoid.0": "Sigmoid", "experts_out": "Gemm",
}  # fmt: skip


class LayoutError(ValueError):
    """The file's graph is not the one that the kernels compute; says in what."""


@dataclass(frozen=True)
class PackedProduct:
    """x @ weight + bias; `inputs` and `outputs` with their padding."""

    weight: NDArray[np.float32] | NDArray[np.uint16]
    bias: Array  # [outputs]
    inputs: int
    outputs: int


@dataclass(frozen=True)
class PackedLayer:
    """One block, see `Layer` in encoder.h."""

    epsilon: tuple[float, float]
    hidden: int
    bounded: bool
    gate: Array  # [E, width]
    gate_bias: Array  # [E]
    qkv: PackedProduct
    out: PackedProduct
    values: PackedProduct
    down: PackedProduct
    experts: tuple[PackedProduct, ...]


@dataclass(frozen=True)
class PackedEncoder:
    """All of it, see `Encoder` in encoder.h."""

    config: ModelConfig
    width: int
    mean: Array  # [C]
    placed: Array  # [N, width]
    metadata: Array  # [8, extra, width]
    patches: PackedProduct
    layers: tuple[PackedLayer, ...]


def pack(content: bytes, config: ModelConfig, kernels: Kernels) -> PackedEncoder:
    """The weights of an ONNX file in fp32.

    Args:
        content: of the file.
        config: of its encoder.
        kernels: that read them. Patches and gates always are in fp32.

    Raises:
        LayoutError: it is no such file, or its graph is another one.
    """
    try:
        file = onnx_file.read(content)
        _check(file, config)
        return _Packer(file, config, kernels).encoder()
    except (OnnxFileError, KeyError) as error:
        raise LayoutError(f"not an encoder in fp32 as landmoe exports it: {error}") from error


class _Packer:
    def __init__(self, file: OnnxFile, config: ModelConfig, kernels: Kernels) -> None:
        self._config = config
        self._constants: Mapping[str, Array] = file.constants
        self._epsilon = {node.name: node.floats["epsilon"] for node in file.nodes if "epsilon" in node.floats}
        self._nodes = {node.name for node in file.nodes}
        self._lanes, panel = (AVX2_LANES, AVX2_PANEL) if kernels == "avx2" else (LANES, PANEL)
        self._fp32 = partial(_fp32, lanes=self._lanes, panel=panel)
        self._product = _BF16.get(kernels, self._fp32)
        self._by_head = kernels in _BF16

    def encoder(self) -> PackedEncoder:
        cfg = self._config
        m, extra, values = cfg.embed_dim, NUM_EXTRA_TOKENS, cfg.patch_values
        width = _up(m, self._lanes)
        # One for each value of a patch; the kernels want one for each band.
        mean = self._constant("patches.mean", values)[:: cfg.patch_size**2]
        first = self._constant("metadata.projected.bias", extra * m).reshape(extra, m)
        placed = np.vstack([first, self._constant("patches.constant", cfg.num_patches, m)])
        metadata = self._constant("metadata.projected.weight", 8, extra * m).reshape(8, extra, m)
        return PackedEncoder(
            config=cfg,
            width=width,
            mean=mean.copy(),
            placed=_widen(placed, width),
            metadata=_widen(metadata, width),
            patches=self._fp32(self._constant("patches.weight", values, m), np.zeros(m, np.float32)),
            layers=tuple(map(self._layer, range(cfg.depth), cfg.num_experts, cfg.hidden_dims)),
        )

    def _layer(self, i: int, experts: int, hidden: int) -> PackedLayer:
        cfg, name = self._config, f"layer.{i}"
        m = cfg.embed_dim
        d = m // cfg.num_heads
        qkv, qkv_bias = self._linear(f"{name}.qkv", m, (cfg.num_heads + 2 * cfg.num_groups) * d)
        out, out_bias = self._linear(f"{name}.out", m, m)
        if self._by_head:
            order = _heads_first(cfg.num_groups, cfg.num_heads // cfg.num_groups, d)
            queries_first = np.arange(qkv.shape[1]).reshape(cfg.num_groups, -1)
            queries_first[:, : order.shape[1]] = np.take_along_axis(queries_first, order, axis=1)
            qkv, qkv_bias = qkv[:, queries_first.ravel()], qkv_bias[queries_first.ravel()]
            out = out.reshape(cfg.num_groups, -1, m)[np.arange(cfg.num_groups)[:, None], order].reshape(m, m)
        gate, gate_bias = self._linear(f"{name}.logits", m, experts)
        wide, wide_bias = self._linear(f"{name}.experts_w", m, experts * hidden)
        each = zip(np.split(wide, experts, axis=1), np.split(wide_bias, experts), strict=True)
        return PackedLayer(
            epsilon=(self._epsilon[f"{name}.norm1"], self._epsilon[f"{name}.norm2"]),
            hidden=_up(hidden, self._lanes),
            bounded=f"{name}.lowered" not in self._nodes,
            qkv=self._product(qkv, qkv_bias),
            out=self._product(out, out_bias),
            gate=_widen(gate.T, _up(m, self._lanes)),
            gate_bias=gate_bias.copy(),  # out of the file, where numbers stand at any byte
            values=self._product(*self._linear(f"{name}.experts_v", m, hidden)),
            down=self._product(*self._linear(f"{name}.experts_out", hidden, m)),
            experts=tuple(self._product(weight, bias) for weight, bias in each),
        )

    def _linear(self, name: str, inputs: int, outputs: int) -> tuple[Array, Array]:
        return self._constant(f"{name}.weight", inputs, outputs), self._constant(f"{name}.bias", outputs)

    def _constant(self, name: str, *shape: int) -> Array:
        value = self._constants[name]
        if value.shape != shape:
            raise LayoutError(f"{name} is {value.shape}; expected {shape}")
        return value


def _check(file: OnnxFile, config: ModelConfig) -> None:
    operators = {node.name: node.operator for node in file.nodes}
    for i in range(config.depth):
        for name, operator in _NODES.items():
            if (found := operators.get(f"layer.{i}.{name}")) != operator:
                raise LayoutError(f"layer.{i}.{name} is {found or 'missing'}; expected {operator}")
    if extra := [name for name in operators if name.startswith(f"layer.{config.depth}.")]:
        raise LayoutError(f"{extra[0]} is one layer more than the {config.depth} expected")


def _heads_first(groups: int, heads: int, d: int) -> NDArray[np.intp]:
    """Where a group's queries stand in the file, head by head: there they stand column by column."""
    return np.tile(np.arange(heads * d).reshape(d, heads).T.ravel(), (groups, 1))


def _fp32(weight: Array, bias: Array, *, lanes: int, panel: int) -> PackedProduct:
    inputs, outputs = weight.shape[0], _up(weight.shape[1], lanes)
    wide = _widen(weight, outputs)
    panels = [wide[:, start : start + panel].ravel() for start in range(0, outputs, panel)]
    return PackedProduct(_joined(panels), _widen(bias, outputs), inputs, outputs)


def _bf16(weight: Array, bias: Array) -> PackedProduct:
    inputs, outputs = _up(weight.shape[0], 2), _up(weight.shape[1], LANES)
    wide = np.zeros((inputs // 2, 2, outputs), np.uint16)
    wide.reshape(inputs, outputs)[: weight.shape[0], : weight.shape[1]] = to_bf16(weight)
    pairs = wide.transpose(0, 2, 1)
    panels = [pairs[:, start : start + PANEL].ravel() for start in range(0, outputs, PANEL)]
    return PackedProduct(_joined(panels), _widen(bias, outputs), inputs, outputs)


def _amx(weight: Array, bias: Array) -> PackedProduct:
    inputs, outputs = _up(weight.shape[0], 2 * LANES), _up(weight.shape[1], LANES)
    wide = np.zeros((inputs, outputs), np.uint16)
    wide[: weight.shape[0], : weight.shape[1]] = to_bf16(weight)
    panels = []
    for start in range(0, outputs, 2 * LANES):
        panel = wide[:, start : start + 2 * LANES].reshape(inputs // 32, LANES, 2, -1, LANES)
        panels.append(panel.transpose(0, 3, 1, 4, 2).ravel())
    return PackedProduct(_joined(panels), _widen(bias, outputs), inputs, outputs)


_BF16: dict[Kernels, Callable[[Array, Array], PackedProduct]] = {"bf16": _bf16, "amx": _amx}


def _joined(panels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One behind the other, from the start of a cache line on: to load a register from two takes longer."""
    size, dtype = sum(panel.nbytes for panel in panels), panels[0].dtype
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    joined = room[start : start + size].view(dtype)
    return np.concatenate(panels, out=joined)


def to_bf16(values: Array) -> NDArray[np.uint16]:
    """The upper halves of fp32 numbers, rounded to nearest, of ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _widen(values: Array, width: int) -> Array:
    """Zeros at the end of the last axis."""
    pads = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
    return np.ascontiguousarray(np.pad(values, pads))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
