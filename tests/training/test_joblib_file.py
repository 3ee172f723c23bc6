"""A joblib file may come from anywhere: nothing in it runs, and it costs no more than its size allows."""

from __future__ import annotations

import builtins
import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tests.training import published_probes as published
from training import joblib_file
from training.joblib_file import JoblibError, read
from training.pickle_machine import Instance

PROTO = b"\x80\x04"


class Calls:
    """Pickles to a call: unpickling it the usual way runs it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, tuple[Any, str]]:
    """What would write `marker` (or import, or open something), and the name that must be refused."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": (Calls(os.system, f"touch {marker}"), f"{os.name}.system"),
        "eval": (Calls(eval, code), "builtins.eval"),
        "exec": (Calls(exec, code), "builtins.exec"),
        "open": (Calls(open, str(marker), "w"), "io.open"),
        "getattr": (Calls(getattr, os, "system"), "builtins.getattr"),
        "chain": (Calls(Calls(getattr, Calls(__import__, "os"), "system"), "true"), "builtins.getattr"),  # type: ignore[arg-type]
        "popen": (Calls(subprocess.Popen, ["touch", str(marker)]), "subprocess.Popen"),
        "memmap": (Calls(np.memmap, str(marker), "u1", "w+", 0, (4,)), "numpy.memmap"),
        "load": (Calls(joblib.load, str(marker)), "joblib.numpy_pickle.load"),
        "random": (np.random.RandomState(0), "numpy.random._pickle.__randomstate_ctor"),
        "module": (LogisticRegression, ""),
        "path": (marker, "pathlib.PosixPath"),
    }


NAMES = sorted(hostile(Path("x")).keys() - {"module"})
WHERE = ("alone", "attribute", "instead of weights", "array", "class names", "compressed")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_file_runs(tmp_path: Path, name: str, where: str) -> None:
    marker, file = tmp_path / "ran", tmp_path / "p.joblib"
    bomb, refused = hostile(marker)[name]
    if name == "getattr":  # a module cannot be pickled, so the bytes are written by hand
        file.write_bytes(PROTO + b"cbuiltins\ngetattr\ncos\nsystem\n\x86R.")
    elif name == "chain":
        file.write_bytes(
            PROTO
            + b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(\x8c\x02ostR\x8c\x06systemtR(\x8c\x04truetR."
        )
    elif where == "alone":
        joblib.dump(bomb, file)
    elif where == "array":
        joblib.dump(np.array([[bomb]], dtype=object), file)
    else:
        model = LogisticRegression()
        model.classes_ = np.array(["a", bomb], dtype=object) if where == "class names" else np.arange(2)
        model.coef_ = bomb if where == "instead of weights" else np.zeros((1, 144))
        attributes = {"model": model, "extra": bomb if where == "attribute" else None}
        if where == "compressed":
            attributes["scaler"] = [{"deep": (bomb,)}]
        published.dump(file, compress=3 if where == "compressed" else 0, **attributes)
    imported = set(sys.modules)
    with pytest.raises(JoblibError, match="nothing in it was run") as error:
        read(file)
    assert refused in str(error.value)
    assert not marker.exists()
    assert set(sys.modules) == imported


def test_imports_nothing_that_it_reads(tmp_path: Path) -> None:
    """The published class, scikit-learn and joblib included: the file is read without them."""
    attributes, _ = published.fit(
        np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3, scale=True
    )
    published.dump(tmp_path / "p.joblib", **attributes)
    code = (
        "import sys; from pathlib import Path; from training.published_probe import import_probe;"
        f"p = import_probe(Path({str(tmp_path / 'p.joblib')!r}), None, 'mean', ('a', 'b', 'c'));"
        "never = {'sklearn', 'joblib', 'torch', 'classification_models'};"
        "print(p.probe.dim, never & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4 set()\n"


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "p.joblib"
    path.write_bytes(data)
    return path


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


@pytest.mark.parametrize(
    "compress",
    [
        zlib.compress,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda d: lzma.compress(d, lzma.FORMAT_ALONE),
    ],
)
def test_compressed_bombs_stop_at_the_limit(
    tmp_path: Path, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib_file, "MAX_BYTES", 1 << 20)
    path = written(tmp_path, compress(bytes(64 << 20)))
    tracemalloc.start()
    with pytest.raises(JoblibError, match="more than the 1048576 bytes, decompressed"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    good = compress(pickle.dumps(["a"]))
    assert read(written(tmp_path, good)) == ["a"]
    with pytest.raises(JoblibError, match="damaged"):
        read(written(tmp_path, good[:-12]))


def test_decoder_memory_is_limited(tmp_path: Path) -> None:
    header = b"\x5d" + struct.pack("<I", 1 << 31) + b"\xff" * 8  # asks for a dictionary of 2 GB
    path = written(tmp_path, header + lzma.compress(b"x", lzma.FORMAT_ALONE)[13:])
    with pytest.raises(JoblibError, match=r"damaged .*Memory usage limit"):
        read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x04\x22\x4d\x18abc", "compressed with lz4"),
        (b"ZF0x12", "joblib before 0.10"),
        (b"hello", "damaged"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(JoblibError, match=message):
        read(written(tmp_path, data))


def test_too_large_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JoblibError, match="no such file"):
        read(tmp_path / "none")
    with pytest.raises(JoblibError, match="no such file"):
        read(tmp_path)
    monkeypatch.setattr(joblib_file, "MAX_BYTES", 100)
    with pytest.raises(JoblibError, match="101 bytes, more than the 100 that"):
        read(written(tmp_path, bytes(101)))


@pytest.fixture(scope="module")
def probe_file() -> bytes:
    attributes, _ = published.fit(
        np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3, scale=True
    )
    with published.published_class() as cls:
        instance = cls()
        instance.__dict__ |= attributes
        stream = io.BytesIO()
        joblib.dump(instance, stream)
    return stream.getvalue()


def test_every_truncation_is_refused(tmp_path: Path, probe_file: bytes) -> None:
    assert isinstance(read(written(tmp_path, probe_file)), Instance)
    for length in range(len(probe_file)):
        with pytest.raises(JoblibError):
            read(written(tmp_path, probe_file[:length]))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_an_error_or_plain_data(tmp_path: Path, probe_file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(probe_file)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(written(tmp_path, bytes(damaged)))
    except JoblibError as error:
        assert len(str(error)) < 1500  # noqa: PT017 - either outcome is right; the message must stay short


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.binary(max_size=60))
@example(program=rb"cnumpy\d" + b"\ndtype\n")  # an escape that is none, of which Python warns
@example(program=rb"S'\d'" + b"\n")
def test_any_bytes_give_an_error_or_plain_data(tmp_path: Path, program: bytes) -> None:
    before = dict(vars(builtins))
    with suppress(JoblibError):
        read(written(tmp_path, PROTO + program + b"."))
    assert dict(vars(builtins)) == before
