"""Runs the encoder with the native kernels, through ctypes: a call holds no lock of the interpreter."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.config import NUM_EXTRA_TOKENS, ModelConfig
from model.native.layout import Kernels, LayoutError, PackedEncoder, PackedProduct, pack
from model.outputs import POOLINGS, ROUTING, shapes

__all__ = [
    "OUTPUTS",
    "KernelsError",
    "LayoutError",
    "NativeEncoder",
    "NativeSession",
    "able",
    "kernels",
    "unusable",
]

Numbers = Literal["fp32", "bf16"]

OUTPUTS = (*POOLINGS, ROUTING)  # in the order of encoder.h
LIBRARY = Path(__file__).with_name("landmoe_kernels.so")
# Of each kind of numbers, the fastest first.
_KERNELS: dict[Numbers, tuple[Kernels, ...]] = {"fp32": ("fp32", "avx2"), "bf16": ("amx", "bf16")}


class KernelsError(RuntimeError):
    """The kernels cannot be used; says why."""


# The structures of encoder.h.


class _Product(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inputs", c_int32), ("outputs", c_int32))


class _Gate(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("experts", c_int32))


class _Layer(Structure):
    _fields_ = (
        ("epsilon", c_float * 2), ("hidden", c_int32), ("bounded", c_int32), ("gate", _Gate),
        ("qkv", _Product), ("out", _Product), ("values", _Product), ("down", _Product),
        ("expert", POINTER(_Product)),
    )  # fmt: skip


_SIZES = (
    "channels", "side", "patch", "tokens", "extra", "dim", "width", "heads", "groups", "head_dim", "depth",
    "top_k", "most_experts",
)  # fmt: skip


class _Encoder(Structure):
    _fields_ = (
        *((name, c_int32) for name in _SIZES),
        ("mean", c_void_p), ("placed", c_void_p), ("metadata", c_void_p), ("patches", _Product),
        ("layers", POINTER(_Layer)),
    )  # fmt: skip


class _Outputs(Structure):
    _fields_ = tuple((name, c_void_p) for name in OUTPUTS)


def unusable(numbers: Numbers) -> str | None:
    """Why there are no kernels for these numbers here; None where there are."""
    try:
        kernels(numbers)
    except KernelsError as error:
        return str(error)
    return None


def kernels(numbers: Numbers) -> Kernels:
    """The fastest that the CPU can run.

    Raises:
        KernelsError: there are none.
    """
    for name in able(numbers):
        return name
    needed = {"fp32": "AVX2 with FMA", "bf16": "AVX-512 with BF16"}[numbers]
    raise KernelsError(f"this CPU has no {needed}, which landmoe's kernels in {numbers} need")


def able(numbers: Numbers) -> tuple[Kernels, ...]:
    """All that the CPU can run, the fastest first.

    Raises:
        KernelsError: the package has none.
    """
    library = _library(LIBRARY)
    return tuple(name for name in _KERNELS[numbers] if getattr(library, f"landmoe_supports_{name}")())


@functools.cache
def _library(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise KernelsError("landmoe was installed without its kernels: there was no C compiler, or no x86-64")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsError(f"{path} cannot be loaded: {error}") from error


class NativeEncoder:
    """An encoder's weights, which its sessions share.

    Args:
        content: of the ONNX file in fp32.
        config: of its encoder.
        numbers: to compute in.
        only: these kernels instead of the fastest, of those that the CPU is `able` to run.

    Raises:
        KernelsError: there are no kernels for these numbers here.
        LayoutError: the file holds another graph.
    """

    def __init__(
        self, content: bytes, config: ModelConfig, numbers: Numbers, only: Kernels | None = None
    ) -> None:
        self.config = config
        self.kernels = only or kernels(numbers)
        self._packed = pack(content, config, self.kernels)  # kept: the structure points into it
        self.structure = _encoder(self._packed)
        self.open = self._function("open", c_void_p, POINTER(_Encoder), c_int32, c_int32)
        self.run = self._function("run", None, c_void_p, c_void_p, c_void_p, c_int32, POINTER(_Outputs))
        self.close = self._function("close", None, c_void_p)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(_library(LIBRARY), f"landmoe_{name}_{self.kernels}")
        function.restype, function.argtypes = result, arguments
        return function


class NativeSession:
    """Memory and threads for one run at a time; further callers wait.

    Args:
        encoder: its weights.
        chunk: tiles that are computed at once, whose rows should fit the cache.
        threads: of a run, its caller included.

    Raises:
        KernelsError: the encoder is larger than the kernels allow, or there is no memory for it.
    """

    def __init__(self, encoder: NativeEncoder, *, chunk: int, threads: int) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._handle = encoder.open(ctypes.byref(encoder.structure), chunk, threads)
        if not self._handle:
            raise KernelsError("this encoder is larger than the kernels allow, or there is no memory for it")
        # Not at exit: a run may be under way in another thread then.
        weakref.finalize(self, _close, encoder, self._handle, os.getpid()).atexit = False
        self._process = os.getpid()
        config = encoder.config
        self._shapes = {
            **shapes(config),
            ROUTING: (config.depth, max(config.num_experts)),
        }
        self._tile = (config.in_channels, config.image_size, config.image_size)

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """The outputs asked for, of the tiles dn uint16 (B, 7, 40, 40) with metadata float32 (B, 4, 2).

        Raises:
            ValueError: arrays of other shapes or types.
            KernelsError: the process was forked from the one that has the threads.
        """
        if os.getpid() != self._process:
            raise KernelsError(
                "the threads of this session are in the process it was opened in; open another"
            )
        count = len(dn)
        if dn.shape[1:] != self._tile or metadata.shape != (count, 4, 2):
            raise ValueError(
                f"tiles {dn.shape} and metadata {metadata.shape}; expected (B, {self._tile}), (B, 4, 2)"
            )
        if dn.dtype != np.uint16 or metadata.dtype != np.float32:
            raise ValueError(f"tiles {dn.dtype} and metadata {metadata.dtype}; expected uint16 and float32")
        dn, metadata = np.ascontiguousarray(dn), np.ascontiguousarray(metadata)
        values = {name: np.empty((count, *self._shapes[name]), np.float32) for name in outputs}
        wanted = _Outputs(**{name: value.ctypes.data for name, value in values.items()})
        with self._lock:
            self._encoder.run(self._handle, dn.ctypes.data, metadata.ctypes.data, count, ctypes.byref(wanted))
        return [values[name] for name in outputs]


def _close(encoder: NativeEncoder, handle: int, process: int) -> None:
    if os.getpid() == process:  # after a fork there are no threads to wait for
        encoder.close(handle)


def _encoder(packed: PackedEncoder) -> _Encoder:
    cfg = packed.config
    layers = (_Layer * cfg.depth)()
    for layer, source in zip(layers, packed.layers, strict=True):
        layer.epsilon[:] = source.epsilon
        layer.hidden, layer.bounded = source.hidden, source.bounded
        layer.gate = _Gate(source.gate.ctypes.data, source.gate_bias.ctypes.data, len(source.experts))
        layer.expert = (_Product * len(source.experts))(*map(_product, source.experts))
        for name in ("qkv", "out", "values", "down"):
            setattr(layer, name, _product(getattr(source, name)))
    sizes = (
        cfg.in_channels, cfg.image_size, cfg.patch_size, cfg.num_tokens, NUM_EXTRA_TOKENS, cfg.embed_dim,
        packed.width, cfg.num_heads, cfg.num_groups, cfg.embed_dim // cfg.num_heads, cfg.depth, cfg.top_k,
        max(cfg.num_experts),
    )  # fmt: skip
    return _Encoder(
        *sizes,
        *(array.ctypes.data for array in (packed.mean, packed.placed, packed.metadata)),
        _product(packed.patches),
        layers,
    )


def _product(packed: PackedProduct) -> _Product:
    return _Product(packed.weight.ctypes.data, packed.bias.ctypes.data, packed.inputs, packed.outputs)
