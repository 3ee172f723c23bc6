"""Constants and nodes of an ONNX file, read without the onnx package, which serving does not need otherwise.

An ONNX file is one protocol buffer (onnx.proto3; the encoding: protobuf.dev/programming-guides/encoding).
Read are the fields that graph.py writes: a constant's name, dimensions, type and raw bytes, a node's
operator, name, and attributes that are one float. All others are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT = 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MOST_VARINT_BYTES = 10
_MAX_DIMS = 8


class OnnxFileError(ValueError):
    """The bytes are not such a file; says where they cease to be one."""


@dataclass(frozen=True)
class Node:
    """An operator, by the name of its node, with those attributes that are one float."""

    operator: str
    name: str
    floats: dict[str, float]


@dataclass(frozen=True)
class OnnxFile:
    """A graph's nodes in their order, and its constants of fp32; those of other types are left out."""

    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[np.float32]]


def read(content: bytes) -> OnnxFile:
    """Reads a file; constants are views of `content`.

    Raises:
        OnnxFileError: it cannot be read.
    """
    view = memoryview(content)
    nodes: list[Node] = []
    constants: dict[str, NDArray[np.float32]] = {}
    for graph in _parts(view, _MODEL_GRAPH):
        for number, value in _fields(graph):
            if number == _GRAPH_NODE:
                nodes.append(_node(_bytes(value)))
            elif number == _GRAPH_INITIALIZER:
                _add_constant(constants, _bytes(value))
    return OnnxFile(tuple(nodes), constants)


def _node(view: memoryview) -> Node:
    floats: dict[str, float] = {}
    operator = name = ""
    for number, value in _fields(view):
        if number == _NODE_NAME:
            name = _text(value)
        elif number == _NODE_OPERATOR:
            operator = _text(value)
        elif number == _NODE_ATTRIBUTE:
            attribute = dict(_fields(_bytes(value)))
            if isinstance(single := attribute.get(_ATTRIBUTE_FLOAT), float):
                floats[_text(attribute.get(_ATTRIBUTE_NAME, memoryview(b"")))] = single
    return Node(operator, name, floats)


def _add_constant(constants: dict[str, NDArray[np.float32]], view: memoryview) -> None:
    dims: list[int] = []
    name, data_type, raw = "", 0, memoryview(b"")
    for number, value in _fields(view):
        if number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(_bytes(value)))
        elif number == _TENSOR_TYPE and isinstance(value, int):
            data_type = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_RAW:
            raw = _bytes(value)
    if data_type != _FLOAT:
        return
    if len(dims) > _MAX_DIMS or any(size >= 1 << 31 for size in dims):
        raise OnnxFileError(f"the constant {name!r} has dimensions {str(dims)[:200]}; expected few and small")
    if len(raw) != 4 * int(np.prod(dims, dtype=object)):
        raise OnnxFileError(f"the constant {name!r} {dims} has {len(raw)} bytes; expected 4 for each number")
    constants[name] = np.frombuffer(raw, "<f4").reshape(dims)


def _parts(view: memoryview, wanted: int) -> Iterator[memoryview]:
    return (_bytes(value) for number, value in _fields(view) if number == wanted)


def _fields(view: memoryview) -> Iterator[tuple[int, int | float | memoryview]]:
    """Numbers and values of a message's fields."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        wire = key & 7
        value: int | float | memoryview
        if wire == _VARINT:
            value, at = _varint(view, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
            if at + size > len(view):
                raise OnnxFileError(f"a number of {size} bytes ends behind the end, {len(view)} bytes")
            value = struct.unpack_from("<f" if wire == _FIXED32 else "<d", view, at)[0]
            at += size
        elif wire == _BYTES:
            size, at = _varint(view, at)
            if size > len(view) - at:
                raise OnnxFileError(f"a field of {size} bytes is cut off after {len(view) - at}")
            value = view[at : at + size]
            at += size
        else:
            raise OnnxFileError(f"wire type {wire}; expected 0, 1, 2 or 5")
        yield key >> 3, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for place, byte in enumerate(view[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise OnnxFileError("a number has no end")


def _varints(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _bytes(value: int | float | memoryview) -> memoryview:
    if not isinstance(value, memoryview):
        raise OnnxFileError(f"a number, {value!r}; expected a text or a message")
    return value


def _text(value: int | float | memoryview) -> str:
    try:
        return str(_bytes(value), "utf-8")
    except UnicodeDecodeError as error:
        raise OnnxFileError(f"a name is not UTF-8: {error}") from error
