"""The GPU's way of running batches, on the CPU: the same buffers, sizes and order."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from model import bundle as bundles
from model.bundle import Bundle
from model.outputs import POOLINGS
from service.batching import device_session, providers
from service.batching.device_session import DeviceSession, open_session
from service.batching.providers import ProviderError, bucket_sizes
from service.encoder_engine import make_engine
from service.settings import Settings

SIZES = (1, 2, 4)


@pytest.fixture(scope="module")
def content() -> bytes:
    return bundles.load().encoder_path().read_bytes()


@pytest.fixture(scope="module")
def plain(content: bytes) -> ort.InferenceSession:
    return providers.session(content, "cpu", 1)


@pytest.fixture(scope="module")
def bound(content: bytes) -> DeviceSession:
    return DeviceSession(lambda: providers.session(content, "cpu", 1), "cpu", SIZES, graphs=True)


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    dn = rng.integers(7_000, 30_000, (size, 7, 40, 40), dtype=np.uint16)
    return dn, rng.normal(size=(size, 4, 2)).astype(np.float32)


def test_batch_sizes_are_few() -> None:
    assert bucket_sizes(64) == (1, 2, 4, 8, 16, 32, 64)
    assert bucket_sizes(48) == (1, 2, 4, 8, 16, 32, 48)
    assert bucket_sizes(1) == (1,)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_padded_or_in_parts_a_batch_gives_the_same(
    size: int, bound: DeviceSession, plain: ort.InferenceSession
) -> None:
    dn, metadata = batch(size, seed=size)
    found = bound.run(dn, metadata, POOLINGS)
    for name, values, exact in zip(
        POOLINGS, found, plain.run(list(POOLINGS), {"dn": dn, "metadata": metadata}), strict=True
    ):
        assert values.shape == exact.shape, name
        assert np.abs(values - exact).max() <= 1e-5 * np.abs(exact).max(), name


def test_results_stay_when_the_buffers_are_used_again(bound: DeviceSession) -> None:
    first = bound.run(*batch(2, 1), ("mean",))[0]
    kept = first.copy()
    second = bound.run(*batch(2, 2), ("mean",))[0]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_tiles_of_an_earlier_batch_do_not_show(bound: DeviceSession) -> None:
    dn, metadata = batch(3, 3)
    before = bound.run(dn, metadata, ("mean",))[0]
    bound.run(*batch(4, 4), ("mean",))
    assert np.array_equal(bound.run(dn, metadata, ("mean",))[0], before)


def test_everything_happens_in_one_thread(content: bytes) -> None:
    """ONNX Runtime's graphs belong to the thread that recorded them."""
    threads: list[str] = []

    class Watched:
        def __init__(self) -> None:
            threads.append(threading.current_thread().name)
            self._session = providers.session(content, "cpu", 1)

        def __getattr__(self, name: str) -> object:
            return getattr(self._session, name)

        def run_with_iobinding(self, binding: object, options: object) -> None:
            threads.append(threading.current_thread().name)
            self._session.run_with_iobinding(binding, options)

    bound = DeviceSession(Watched, "cpu", (1,), graphs=True)
    others = [threading.Thread(target=bound.run, args=(*batch(1), ("mean",))) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert threads == ["device"] * 4


def test_the_thread_ends_with_its_session(content: bytes) -> None:
    before = set(threading.enumerate())
    bound = DeviceSession(lambda: providers.session(content, "cpu", 1), "cpu", (1,), graphs=False)
    (thread,) = set(threading.enumerate()) - before
    bound.run(*batch(1), ("cls",))
    del bound
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_an_error_comes_back_and_the_next_run_works(bound: DeviceSession) -> None:
    with pytest.raises(KeyError, match="depth"):
        bound.run(*batch(1), ("depth",))
    assert np.isfinite(bound.run(*batch(1), ("mean",))[0]).all()


def make(content: bytes, asked: list[bool]) -> Callable[[bool], ort.InferenceSession]:
    def session(graphs: bool) -> ort.InferenceSession:
        asked.append(graphs)
        return providers.session(content, "cpu", 1)

    return session


def test_graphs_are_used_where_they_replay(content: bytes) -> None:
    asked: list[bool] = []
    opened = open_session(make(content, asked), "cpu", (1, 2))
    assert opened.graphs
    assert asked == [True]


def test_graphs_that_cannot_be_recorded_are_done_without(content: bytes) -> None:
    def session(graphs: bool) -> ort.InferenceSession:
        if graphs:
            raise RuntimeError("This session cannot use the graph capture feature")
        return providers.session(content, "cpu", 1)

    opened = open_session(session, "cpu", (1, 2))
    assert not opened.graphs
    assert np.isfinite(opened.run(*batch(2), ("mean",))[0]).all()


def test_graphs_that_replay_old_tiles_are_done_without(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replay would, that does not see what was written to its inputs since."""
    stale = device_session._Buffers.run

    def run(self: device_session._Buffers, dn: np.ndarray, *rest: object) -> object:
        return stale(self, np.full_like(dn, 9_000), *rest)

    monkeypatch.setattr(device_session._Buffers, "run", run)
    asked: list[bool] = []
    assert not open_session(make(content, asked), "cpu", (1,)).graphs
    assert asked == [True, False]


def test_a_missing_device_is_not_blamed_on_graphs(content: bytes) -> None:
    asked: list[bool] = []

    def session(graphs: bool) -> ort.InferenceSession:
        asked.append(graphs)
        raise ProviderError("no such device")

    with pytest.raises(ProviderError, match="no such device"):
        open_session(session, "cpu", (1,))
    assert asked == [True]


@pytest.fixture
def as_cuda(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An engine that believes it is on CUDA, with its buffers and sessions on the CPU; sizes that it ran."""
    sizes: list[int] = []
    make = providers.session
    run = device_session._Buffers.run

    def noted(self: device_session._Buffers, dn: np.ndarray, *rest: object) -> object:
        sizes.append(len(dn))
        return run(self, dn, *rest)

    monkeypatch.setattr(device_session._Buffers, "run", noted)
    monkeypatch.setattr(providers, "session", lambda c, p, t, graphs=False: make(c, "cpu", t))
    monkeypatch.setattr(device_session, "open_session", lambda m, d, sizes: open_session(m, "cpu", sizes))
    monkeypatch.setattr(providers, "built_for", lambda: ["CUDAExecutionProvider"])
    return sizes


def test_every_size_is_warm_before_the_engine_is_ready(as_cuda: list[int]) -> None:
    engine = make_engine(Settings(provider="cuda", max_batch_size=6))
    assert (engine.provider, engine.precision, engine.buckets) == ("cuda", "fp32", (1, 2, 4, 6))
    # What the check of the graphs ran, then each size twice, which allocates and records; largest first.
    assert as_cuda[-8:] == [6, 6, 4, 4, 2, 2, 1, 1]
    dn, metadata = batch(5)
    found = engine.run(dn, metadata, ("mean", "routing"))
    assert found["mean"].shape == (5, 144)
    assert found["routing"].shape == (5, 15, 5)
    assert as_cuda[-1] == 6
    as_cuda.clear()
    engine.restart()
    assert as_cuda[-8:] == [6, 6, 4, 4, 2, 2, 1, 1]


def test_fast_means_half_precision_on_cuda() -> None:
    bundle: Bundle = bundles.load()
    both = replace(bundle, files=bundle.files | {"encoder.fp16.onnx": "0" * 64})
    assert providers.numbers(both, "fast", "cuda") == "fp16"
    assert providers.numbers(both, "exact", "cuda") == "fp32"
    with pytest.raises(ProviderError, match=r"'fast' on cuda needs an encoder in fp16; bundle .* has fp32"):
        providers.numbers(bundle, "fast", "cuda")
