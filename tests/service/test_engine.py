"""The real engine on the bundle of the package: the same numbers in any batch, thread and runtime."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model.bundle import Bundle
from model.native import session as native
from model.outputs import POOLINGS
from service.batching.providers import Precision
from service.encoder_engine import EncoderEngine
from service.formats import l2_normalized
from tests.service.runtimes import (
    EXACT,
    NO_KERNELS,
    batch,
    cpu_flags,
    needs_bf16,
    needs_kernels,
)


@pytest.fixture(scope="module", params=EXACT)
def engine(request: pytest.FixtureRequest, loaded: Bundle) -> EncoderEngine:
    made = EncoderEngine(loaded, threads=1, kernels=request.param)
    assert made.runtime == ("kernels" if request.param else "onnxruntime")
    return made


def test_outputs_are_what_they_are_called(engine: EncoderEngine, loaded: Bundle) -> None:
    """Each pooling is that of the tokens (float32 sums in another order: a few units in the last place)."""
    results = engine.run(*batch(3), POOLINGS)
    tokens = results["tokens"].astype(np.float64)
    patches = tokens[:, 5:]
    want = {
        "mean": tokens.mean(axis=1),
        "cls": tokens[:, 4],
        "patch_mean": patches.mean(axis=1),
        "patch_mean_std": np.concatenate([patches.mean(axis=1), patches.std(axis=1)], axis=1),
    }
    assert tokens.shape == (3, loaded.config.num_tokens, loaded.config.embed_dim)
    for name, values in want.items():
        assert np.abs(results[name] - values).max() < 1e-5 * np.abs(tokens).max(), name


@needs_kernels
def test_the_kernels_give_what_onnx_runtime_gives(loaded: Bundle) -> None:
    dn, metadata = batch(6)
    metadata[2] = 0
    dn[3] = 0
    dn[4] = 65_535
    names = (*POOLINGS, "routing")
    ours, theirs = (
        EncoderEngine(loaded, kernels=kernels).run(dn, metadata, names) for kernels in (True, False)
    )
    for name in names:
        assert np.abs(ours[name] - theirs[name]).max() < 2e-6 * np.abs(theirs[name]).max(), name


@needs_kernels
def test_a_larger_encoder_is_left_to_onnx_runtime(loaded: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise native.KernelsError("too large")

    monkeypatch.setattr("service.batching.cpu_sessions.NativeSession", refuse)
    engine = EncoderEngine(loaded)
    assert engine.runtime == "onnxruntime"
    assert engine.run(*batch(1), ("mean",))["mean"].shape == (1, 144)


def test_serving_on_kernels_imports_no_onnx_runtime() -> None:
    code = (
        "import sys; from service.encoder_engine import make_engine; from service.settings import Settings;"
        "e = make_engine(Settings(engine_threads=1, provider='cpu'));"
        "print(e.runtime, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["kernels", "False"] if NO_KERNELS is None else ["onnxruntime", "True"])


def test_only_the_outputs_asked_for_are_given(engine: EncoderEngine) -> None:
    assert engine.run(*batch(1), ("cls",)).keys() == {"cls"}


def test_a_tile_is_the_same_in_any_batch(engine: EncoderEngine) -> None:
    """Bitwise on CPUs with AVX-512, where it was seen; elsewhere within the exporter's tolerance."""
    dn, metadata = batch(9)
    together = engine.run(dn, metadata, ("tokens",))["tokens"]
    for i in (0, 4, 8):
        alone = engine.run(dn[i : i + 1], metadata[i : i + 1], ("tokens",))["tokens"][0]
        difference = np.abs(alone - together[i]).max()
        assert difference <= 1e-5 * np.abs(alone).max(), f"differs by {difference}"
        if "avx512f" in cpu_flags():
            assert alone.tobytes() == together[i].tobytes()


@pytest.mark.parametrize("kernels", EXACT)
def test_all_threads_or_one_give_the_same(loaded: Bundle, kernels: bool) -> None:
    engine = EncoderEngine(loaded, threads=2, kernels=kernels)
    assert engine.concurrency == 2
    dn, metadata = batch(3)
    one, all_ = (engine.run(dn, metadata, ("tokens",), alone=alone)["tokens"] for alone in (False, True))
    assert np.abs(one - all_).max() <= 1e-5 * np.abs(one).max()
    if "avx512f" in cpu_flags():
        assert one.tobytes() == all_.tobytes()


@pytest.mark.parametrize("kernels", EXACT)
def test_a_restarted_engine_gives_the_same(loaded: Bundle, kernels: bool) -> None:
    engine = EncoderEngine(loaded, kernels=kernels)
    before = engine.run(*batch(2), ("mean",))["mean"]
    engine.restart()
    assert np.array_equal(engine.run(*batch(2), ("mean",))["mean"], before)


def test_runs_at_once_share_no_session(loaded: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one that they share, each takes memory that the other's core has in its cache."""
    meeting = threading.Barrier(2, timeout=30)
    runs: list[int] = []  # of which session each was

    class Session(ort.InferenceSession):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            meeting.wait()  # both are under way
            runs.append(id(self))
            return super().run(*args, **kwargs)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    engine = EncoderEngine(loaded, threads=2, kernels=False)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for run in [pool.submit(engine.run, *batch(1), ("mean",)) for _ in range(2)]:
                run.result()
    assert sorted(Counter(runs).values()) == [5, 5]


@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_bf16)])
def test_more_threads_at_once_than_the_engine_has(loaded: Bundle, precision: Precision) -> None:
    engine = EncoderEngine(loaded, precision, threads=2)
    batches = [batch(1 + i % 4, seed=i) for i in range(12)]
    expected = [engine.run(*b, ("mean",))["mean"] for b in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: engine.run(*b, ("mean",))["mean"], batches))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)


def test_l2_norm_is_one_and_zeros_stay_zeros() -> None:
    values = np.array([[3, 4], [0, 0], [1e-30, 0]], np.float32)
    assert np.allclose(l2_normalized(values), [[0.6, 0.8], [0, 0], [1, 0]])
