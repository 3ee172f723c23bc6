"""A joblib file may come from anywhere: nothing in it runs, and it costs no more than its size allows."""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tests.training import published_probes as published
from tests.training.joblib_files import PROTO, written
from training import joblib_file
from training.joblib_file import JoblibError, read
from training.pickle_values import Instance


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
