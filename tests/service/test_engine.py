"""The real engine on the bundle of the package, and on bundles that it must refuse."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model import bundle as bundles
from model import openvino_session
from model.bundle import Bundle, BundleError
from model.native import session as native
from service.batching import providers
from service.batching.providers import Precision, ProviderError, numbers
from service.caching.keys import Namespace
from service.encoder_engine import EncoderEngine, check_engine, make_engine
from service.engine import OUTPUTS, EngineError, warm_up
from service.formats import l2_normalized
from service.settings import Settings
from tests.service.fake_engine import FakeEngine

NO_KERNELS = native.unusable("fp32")
needs_kernels = pytest.mark.skipif(NO_KERNELS is not None, reason=str(NO_KERNELS))
NO_BF16 = native.unusable("bf16")
NO_OPENVINO = openvino_session.unusable()
needs_openvino = pytest.mark.skipif(NO_OPENVINO is not None, reason=f"precision=fast: {NO_OPENVINO}")
needs_bf16 = pytest.mark.skipif(None not in (NO_BF16, NO_OPENVINO), reason=f"{NO_BF16}; {NO_OPENVINO}")

# Exact and fast with what computes them; every promise of an engine holds for each.
EXACT = [pytest.param(True, id="kernels", marks=needs_kernels), pytest.param(False, id="onnxruntime")]
FAST = [
    pytest.param(True, id="kernels", marks=pytest.mark.skipif(NO_BF16 is not None, reason=str(NO_BF16))),
    pytest.param(False, id="openvino", marks=needs_openvino),
]


@pytest.fixture(scope="module")
def loaded() -> Bundle:
    return bundles.load()


@pytest.fixture(scope="module", params=EXACT)
def engine(request: pytest.FixtureRequest, loaded: Bundle) -> EncoderEngine:
    made = EncoderEngine(loaded, threads=1, kernels=request.param)
    assert made.runtime == ("kernels" if request.param else "onnxruntime")
    return made


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    dn = rng.integers(7_000, 30_000, (size, 7, 40, 40), dtype=np.uint16)
    return dn, rng.normal(size=(size, 4, 2)).astype(np.float32)


def test_outputs_are_what_they_are_called(engine: EncoderEngine, loaded: Bundle) -> None:
    """Each pooling is that of the tokens (float32 sums in another order: a few units in the last place)."""
    results = engine.run(*batch(3), OUTPUTS)
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
    names = (*OUTPUTS, "routing")
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
        if "avx512f" in _cpu_flags():
            assert alone.tobytes() == together[i].tobytes()


def test_a_file_that_changed_after_verification_is_refused(loaded: Bundle) -> None:
    changed = replace(loaded, files=loaded.files | {"encoder.fp32.onnx": "0" * 64})
    with pytest.raises(BundleError, match="has changed since"):
        EncoderEngine(changed)


def test_a_file_that_is_no_network_is_refused_with_its_name(tmp_path: Path, loaded: Bundle) -> None:
    junk = bundles.write(
        tmp_path / "junk",
        name="junk",
        version="1",
        trained=False,
        config=loaded.config,
        preprocessing=loaded.preprocessing,
        training={},
        metrics={},
        parity={},
        card="junk",
        files={"encoder.fp32.onnx": b"this is not ONNX"},
    )
    for kernels in (True, False):  # the kernels leave what they cannot read to ONNX Runtime
        with pytest.raises(EngineError, match=r"ONNX Runtime cannot use .*encoder\.fp32\.onnx"):
            EncoderEngine(junk, kernels=kernels)


def test_another_graph_is_refused(tmp_path: Path, loaded: Bundle) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3])
    out = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["mean"])], "other", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "encoder.fp32.onnx"
    path.write_bytes(model.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    other = replace(loaded, path=tmp_path, files={path.name: digest})
    with pytest.raises(EngineError, match=r"has the inputs \{'image'.*expected \{'dn'"):
        EncoderEngine(other)


def test_warm_up_refuses_outputs_that_the_configuration_does_not_have(loaded: Bundle) -> None:
    warm_up(FakeEngine(), (1, 3))
    with pytest.raises(EngineError, match=r"output mean is float32 \(1, 12\); expected float32 \(1, 144\)"):
        warm_up(FakeEngine(loaded), (1,))


@pytest.mark.parametrize("kernels", EXACT)
def test_all_threads_or_one_give_the_same(loaded: Bundle, kernels: bool) -> None:
    engine = EncoderEngine(loaded, threads=2, kernels=kernels)
    assert engine.concurrency == 2
    dn, metadata = batch(3)
    one, all_ = (engine.run(dn, metadata, ("tokens",), alone=alone)["tokens"] for alone in (False, True))
    assert np.abs(one - all_).max() <= 1e-5 * np.abs(one).max()
    if "avx512f" in _cpu_flags():
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


def test_a_restart_does_not_need_a_bundle_that_was_removed(tmp_path: Path, loaded: Bundle) -> None:
    copied = shutil.copytree(loaded.path, tmp_path / "bundle")
    engine = EncoderEngine(bundles.load(copied))
    before = engine.run(*batch(2), ("mean",))["mean"]
    shutil.rmtree(copied)
    engine.restart()
    assert np.array_equal(engine.run(*batch(2), ("mean",))["mean"], before)


def test_a_bundle_that_changed_is_not_taken_by_a_restart(tmp_path: Path, loaded: Bundle) -> None:
    engine = EncoderEngine(bundles.load(shutil.copytree(loaded.path, tmp_path / "bundle")))
    with (tmp_path / "bundle/encoder.fp32.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineError, match="has changed since the bundle was verified"):
        engine.restart()
    assert engine.run(*batch(1), ("mean",))["mean"].shape == (1, 144)  # with the sessions that it has


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "built_for", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"ONNX Runtime has no CUDA; install landmoe\[gpu\]"):
        make_engine(Settings(provider="cuda"))


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA may work here")
def test_a_build_with_cuda_on_a_machine_without_it_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(providers, "built_for", lambda: offered)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):  # ONNX Runtime's own, beside our line
        assert make_engine(Settings(engine_threads=1)).provider == "cpu"
    with (
        pytest.raises(EngineError, match="cannot use cuda here"),
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
    ):
        make_engine(Settings(provider="cuda"))


def test_fast_where_nothing_gives_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unusable", lambda numbers: f"no kernels in {numbers}")
    for reason in ("OpenVINO is not installed", "this CPU has no instructions for bf16"):
        monkeypatch.setattr(openvino_session, "unusable", lambda reason=reason: reason)
        with pytest.raises(
            EngineError, match=f"'fast' on cpu is bf16, for which no kernels in bf16, and {reason}"
        ):
            make_engine(Settings(precision="fast", provider="cpu"))
        with pytest.raises(EngineError, match=f"kernels are off .LANDMOE_KERNELS., and {reason}"):
            make_engine(Settings(precision="fast", provider="cpu", kernels=False))
        with pytest.raises(EngineError, match=reason):
            check_engine(Settings(precision="fast", provider="cpu"))


def test_numbers_that_the_bundle_does_not_have_are_said(loaded: Bundle) -> None:
    exact = replace(loaded, files={name: sha for name, sha in loaded.files.items() if "fp16" not in name})
    with pytest.raises(ProviderError, match=r"'fast' on cuda needs an encoder in fp16; bundle .* has fp32"):
        numbers(exact, "fast", "cuda")


@pytest.mark.parametrize("kernels", FAST)
def test_fast_is_close_to_exact_and_says_what_it_is(loaded: Bundle, kernels: bool) -> None:
    engine = EncoderEngine(loaded, kernels=False)
    fast = EncoderEngine(loaded, "fast", threads=2, kernels=kernels)
    assert (fast.precision, fast.provider, fast.concurrency) == ("bf16", "cpu", 2)
    assert fast.runtime == ("kernels" if kernels else "openvino")
    assert fast.gives_routing
    warm_up(fast, (1, 4, 6))
    dn, metadata = batch(6)
    exact, found = (e.run(dn, metadata, OUTPUTS) for e in (engine, fast))
    for name, least in {"mean": 0.9995, "patch_mean": 0.9995, "cls": 0.99}.items():
        assert cosine(exact[name], found[name]).min() > least, name
    assert not np.array_equal(
        exact["mean"], found["mean"]
    )  # it is another precision, not the same file again


@pytest.mark.parametrize("kernels", FAST)
def test_a_tile_in_bf16_is_the_same_in_any_batch(loaded: Bundle, kernels: bool) -> None:
    """Bitwise: in models of fixed sizes OpenVINO's operators sum in an order that does not depend on them."""
    fast = EncoderEngine(loaded, "fast", threads=2, kernels=kernels)
    dn, metadata = batch(23)
    together = fast.run(dn, metadata, ("tokens",))["tokens"]
    for alone in (False, True):
        for i in range(23):
            one = fast.run(dn[i : i + 1], metadata[i : i + 1], ("tokens",), alone=alone)["tokens"][0]
            assert one.tobytes() == together[i].tobytes()
    for start in (1, 2, 5, 21):
        rest = fast.run(dn[start:], metadata[start:], ("tokens",))["tokens"]
        assert rest.tobytes() == together[start:].tobytes()


@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_bf16)])
def test_more_threads_at_once_than_the_engine_has(loaded: Bundle, precision: Precision) -> None:
    engine = EncoderEngine(loaded, precision, threads=2)
    batches = [batch(1 + i % 4, seed=i) for i in range(12)]
    expected = [engine.run(*b, ("mean",))["mean"] for b in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: engine.run(*b, ("mean",))["mean"], batches))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)


@needs_openvino
def test_a_file_that_openvino_cannot_read_is_refused(tmp_path: Path, loaded: Bundle) -> None:
    path = tmp_path / "encoder.fp32.onnx"
    path.write_bytes(b"this is not ONNX")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    junk = replace(loaded, path=tmp_path, files={path.name: digest})
    with pytest.raises(EngineError, match=r"OpenVINO cannot use .*encoder\.fp32\.onnx"):
        EncoderEngine(junk, "fast", kernels=False)


def test_the_cache_tells_precisions_of_one_file_apart(loaded: Bundle) -> None:
    exact, fast = (
        Namespace(loaded.encoder_digest(precision), "cpu", "kernels", precision, 1)
        for precision in ("fp32", "bf16")
    )
    assert loaded.encoder_digest("bf16") == loaded.encoder_digest("fp32")
    assert exact._whole != fast._whole
    assert exact._shown != fast._shown


def test_l2_norm_is_one_and_zeros_stay_zeros() -> None:
    values = np.array([[3, 4], [0, 0], [1e-30, 0]], np.float32)
    assert np.allclose(l2_normalized(values), [[0.6, 0.8], [0, 0], [1, 0]])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
