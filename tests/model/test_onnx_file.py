"""The reader of ONNX files against the onnx package, and on bytes that are none."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from model.onnx_file import OnnxFileError, read
from tests.model.networks import onnx_bytes, scrambled

CONTENT = onnx_bytes(scrambled().model.encoder)


def test_it_finds_what_the_package_finds() -> None:
    graph = onnx.load_from_string(CONTENT).graph
    found = read(CONTENT)
    assert [(node.operator, node.name) for node in found.nodes] == [(n.op_type, n.name) for n in graph.node]
    for node, theirs in zip(found.nodes, graph.node, strict=True):
        floats = {a.name: a.f for a in theirs.attribute if a.type == onnx.AttributeProto.FLOAT}
        assert node.floats == floats
    constants = {
        t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT
    }
    assert found.constants.keys() == constants.keys()
    for name, value in constants.items():
        assert np.array_equal(found.constants[name], value)


def test_dimensions_that_are_not_packed_and_a_scalar() -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    two = b"\x08\x02\x08\x01" + b"\x10\x01" + field(8, b"two") + field(9, np.array([3, 4], "<f4").tobytes())
    scalar = b"\x10\x01" + field(8, b"one") + field(9, np.array([5], "<f4").tobytes())
    found = read(field(7, field(5, two) + field(5, scalar))).constants
    assert found["two"].tolist() == [[3], [4]]
    assert found["one"].shape == ()
    assert found["one"] == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is not ONNX", "wire type"),
        (b"\x3a\x7f", "cut off after 0"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "has no end"),
        (b"\x38\x01", "expected a text or a message"),
        (b"\x0d\x01", "ends behind the end"),
        (b"\x3a\x06\x2a\x04\x10\x01\x08\x03", "has 0 bytes; expected 4 for each number"),
        (b"\x3a\x05\x0a\x03\x1a\x01\xff", "not UTF-8"),
    ],
)
def test_what_is_no_file_is_said(content: bytes, reason: str) -> None:
    with pytest.raises(OnnxFileError, match=reason):
        read(content)


@given(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=12))
def test_any_bytes_are_read_or_refused(at: int, put: bytes) -> None:
    for content in (CONTENT[:at], CONTENT[:at] + put + CONTENT[at + len(put) :]):
        with contextlib.suppress(OnnxFileError):
            read(content)


@given(st.binary(max_size=200))
def test_bytes_from_anywhere(content: bytes) -> None:
    with contextlib.suppress(OnnxFileError):
        read(content)
