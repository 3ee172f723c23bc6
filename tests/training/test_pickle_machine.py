"""Pickles, instruction by instruction, and joblib's arrays in them: data or an error, at little cost."""

from __future__ import annotations

import builtins
import pickle
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.training.joblib_files import PROTO, written
from training.joblib_file import JoblibError, read


def wrapper(shape: Any, dtype: Any = "<f8", order: Any = "C", subclass: Any = np.ndarray) -> bytes:
    """The pickle of an array's wrapper, without the array."""
    made = joblib.numpy_pickle.NumpyArrayWrapper(subclass, shape, order, np.dtype(dtype))
    return pickle.dumps(made, protocol=4)[:-1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1 << 40,), "impossible shape"),
        ((1 << 28, 1 << 28, 1 << 28, 1 << 28), r"takes \d+ bytes, 16 are left"),
        ((1 << 20,), "takes 8388608 bytes, 16 are left"),
        ((3,), "takes 24 bytes, 16 are left"),
        ((-1,), "impossible shape"),
        ((2, 1 << 28, 0, 0, 0), "impossible shape"),
        ((2.0,), "impossible shape"),
        ((True,), "impossible shape"),
        ([2], "impossible shape"),
        (None, "impossible shape"),
    ],
)
def test_a_claimed_shape_allocates_nothing(tmp_path: Path, shape: Any, message: str) -> None:
    path = written(tmp_path, wrapper(shape) + b"\x00" + bytes(16))
    tracemalloc.start()
    with pytest.raises(JoblibError, match=message):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (wrapper((2,), order="K"), "of another class than numpy.ndarray"),
        (wrapper((2,), subclass=np.matrix), "numpy.matrix"),
        (wrapper((2,), dtype="c16"), "calls numpy.dtype as no linear probe does"),
        (wrapper((2,), dtype=[("a", "f8")]), "calls numpy.dtype as no linear probe does"),
        (wrapper((2,), dtype="M8[s]"), "calls numpy.dtype as no linear probe does"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, made: bytes, message: str) -> None:
    with pytest.raises(JoblibError, match=message):
        read(written(tmp_path, made + b"\x00" + bytes(16) + b"."))


def test_arrays_of_objects_hold_names_only(tmp_path: Path) -> None:
    path = tmp_path / "p.joblib"
    joblib.dump(np.array(["ä", "b"], dtype=object), path)
    np.testing.assert_array_equal(read(path), ["ä", "b"])
    for values in (
        np.array(["a", 1], dtype=object),
        np.array([["a", "b"]], dtype=object),
        np.array(["a" * 2000, "b"], dtype=object),
        np.array(["a"] * 20_000, dtype=object),
    ):
        joblib.dump(values, path)
        with pytest.raises(JoblibError, match=r"not names of classes|sets the state of _ObjectArray"):
            read(path)
    # A nested pickle that is not an array, and arrays of objects within an array of objects.
    for nested in (pickle.dumps(["a"]), wrapper((1,), dtype="O")):
        with pytest.raises(JoblibError, match="array"):
            read(written(tmp_path, wrapper((1,), dtype="O") + nested + b"." + b"."))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b".", "does not end with one value"),
        (b"KK.", None),
        (b"K\x01K\x02.", "does not end with one value"),
        (b"(K\x01.", "does not end with one value"),
        (b"t.", "damaged"),
        (b"\x85.", "takes from an empty stack"),
        (b"R.", "takes from an empty stack"),
        (b"b.", "takes from an empty stack"),
        (b"\x94.", "damaged"),
        (b"h\x05.", "damaged"),
        (b"K\x01K\x02a.", "appends to int"),
        (b"]K\x01K\x02s.", "sets items of list"),
        (b"}(K\x01u.", "damaged"),
        (b"})K\x01s.", "key of type tuple"),
        (b"}}K\x01s.", "key of type dict"),
        (b"K\x01K\x02\x93.", "something that is no text"),
        (b"K\x01)R.", "calls int"),
        (b"K\x01)\x81.", "makes an object of int"),
        (b"cnumpy\ndtype\n)\x81.", "makes an object of numpy.dtype"),
        (b"cnumpy\nndarray\n)R.", "calls numpy.ndarray"),
        (
            b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR.",
            "_reconstruct as no",
        ),
        (b"K\x01}b.", "sets the state of int"),
        (b"cos\nsystem\n.", "'os.system'"),
        (b"\x8c\x02os\x8c\x06system\x93.", "'os.system'"),
        (b"(S'true'\nios\nsystem\n.", "instruction STRING"),
        (b"(ios\nsystem\n.", "instruction INST"),
        (b"(cos\nsystem\no.", "'os.system'"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"Pid\n.", "instruction PERSID"),
        (b"K\x01Q.", "instruction BINPERSID"),
        (b"\x97.", "instruction NEXT_BUFFER"),
        (b"K\x012.", "instruction DUP"),
        (b"\x8f.", "instruction EMPTY_SET"),
        (b"X\xff\xff\xff\x7f.", "damaged"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n.", "damaged"),
        (b"K\x01", "damaged"),
        (b"", "damaged"),
        (b"\xff", "damaged"),
        (b"K\x01.more", "more bytes follow"),
    ],
)
def test_programs(tmp_path: Path, program: bytes, message: str | None) -> None:
    path = written(tmp_path, PROTO + program if program else b"")
    if message is None:
        assert read(path) == ord("K")
        return
    with pytest.raises(JoblibError, match=message):
        read(path)


def test_memo_bombs_cost_what_the_file_costs(tmp_path: Path) -> None:
    # Nine times nine times nine … : shared, so never walked, hashed or written out.
    lists = b"](" + b"](K\x01eq\x00"
    for i in range(200):
        lists += b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 8 + b"eq" + bytes([i + 1])
    tuples = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    tracemalloc.start()
    for program in (lists + b"e.", tuples + b".", b"K\x01r\xff\xff\xff\xff."):
        read(written(tmp_path, PROTO + program))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    with pytest.raises(JoblibError, match="key of type tuple"):
        read(written(tmp_path, PROTO + b"}" + tuples + b"K\x01s."))
    with pytest.raises(JoblibError, match="more than 1000000 instructions"):
        read(written(tmp_path, PROTO + b"](" + b"K\x01" * 1_000_001 + b"e."))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.binary(max_size=60))
@example(program=rb"cnumpy\d" + b"\ndtype\n")  # an escape that is none, of which Python warns
@example(program=rb"S'\d'" + b"\n")
def test_any_bytes_give_an_error_or_plain_data(tmp_path: Path, program: bytes) -> None:
    before = dict(vars(builtins))
    with suppress(JoblibError):
        read(written(tmp_path, PROTO + program + b"."))
    assert dict(vars(builtins)) == before
