"""precision=fast on CPUs: bf16 of the kernels or of OpenVINO, close to exact, or the reason for none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import openvino_session
from model.bundle import Bundle
from model.native import session as native
from model.outputs import POOLINGS
from service.batching.providers import ProviderError, numbers
from service.caching.keys import Namespace, tile_hash
from service.encoder_engine import EncoderEngine, check_engine, make_engine
from service.engine import EngineError, warm_up
from service.settings import Settings
from tests.service.runtimes import (
    FAST,
    batch,
    needs_openvino,
)


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
    exact, found = (e.run(dn, metadata, POOLINGS) for e in (engine, fast))
    for name, least in {"mean": 0.9995, "patch_mean": 0.9995, "cls": 0.99}.items():
        assert cosine(exact[name], found[name]).min() > least, name
    # It is another precision, not the same file again.
    assert not np.array_equal(exact["mean"], found["mean"])


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
        Namespace(loaded.encoder_digest(precision), f"cpu:kernels-amx:{precision}", 1)
        for precision in ("fp32", "bf16")
    )
    assert loaded.encoder_digest("bf16") == loaded.encoder_digest("fp32")
    tile = tile_hash(*(array[0] for array in batch(1)))
    assert exact.key(tile, "mean") != fast.key(tile, "mean")


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
