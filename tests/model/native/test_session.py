"""The kernels against ONNX Runtime on the same file, and what they promise of batches and threads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import numpy as np
import onnxruntime as ort
import pytest
import torch

from model.config import SIZES, ModelConfig
from model.deviation import MIN_COSINE, cosine
from model.moe_mae import Encoder
from model.native import session as native
from model.native.layout import Kernels
from model.native.session import OUTPUTS, KernelsError, NativeEncoder, NativeSession
from tests.model.networks import SMALL, inputs, onnx_bytes, scrambled, session

pytestmark = pytest.mark.skipif(
    native.unusable("fp32") is not None, reason=f"no kernels: {native.unusable('fp32')}"
)

FP32: tuple[Kernels, ...] = () if native.unusable("fp32") else native.able("fp32")
BF16: tuple[Kernels, ...] = () if native.unusable("bf16") else native.able("bf16")
ABLE = (*FP32, *BF16)
CONFIGS = {
    "S": replace(SIZES["S"], depth=3),
    "XS": replace(SIZES["XS"], depth=3),
    "XXS": replace(SIZES["XXS"], depth=3),  # rows of 108 numbers: six registers and three quarters
    "small": SMALL,  # three heads a group, hidden dimensions that are odd
    "one head a group": replace(SMALL, num_heads=2, num_groups=2, embed_dim=20),
    "another tile": replace(SMALL, image_size=24, patch_size=6, in_channels=3, top_k=1),
}


def made(config: ModelConfig, seed: int = 0) -> bytes:
    return onnx_bytes(cast(Encoder, scrambled(config, seed).model.encoder))


def opened(
    content: bytes, config: ModelConfig, kernels: Kernels, *, chunk: int = 4, threads: int = 1
) -> NativeSession:
    numbers = "fp32" if kernels in FP32 else "bf16"
    return NativeSession(NativeEncoder(content, config, numbers, only=kernels), chunk=chunk, threads=threads)


def tiles(config: ModelConfig, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dn, metadata = inputs(count, seed)
    side = config.image_size
    return np.ascontiguousarray(dn[:, : config.in_channels, :side, :side]), metadata


def outputs_of(running: ort.InferenceSession, dn: np.ndarray, metadata: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(OUTPUTS, running.run(list(OUTPUTS), {"dn": dn, "metadata": metadata}), strict=True))


def only(config: ModelConfig, name: str) -> ModelConfig:
    if name == "another tile":  # statistics of the test network are of seven bands
        return replace(config, in_channels=7)
    return config


@pytest.mark.parametrize("kernels", FP32)
@pytest.mark.parametrize("name", CONFIGS)
def test_fp32_is_what_onnx_runtime_gives(name: str, kernels: Kernels) -> None:
    config = only(CONFIGS[name], name)
    content = made(config)
    dn, metadata = tiles(config, 5)
    dn[1], dn[2] = 0, 65_535
    expected = outputs_of(session(content), dn, metadata)
    found = dict(zip(OUTPUTS, opened(content, config, kernels).run(dn, metadata, OUTPUTS), strict=True))
    for output in OUTPUTS:
        assert found[output].shape == expected[output].shape
        off = np.abs(found[output] - expected[output]).max() / np.abs(expected[output]).max()
        assert off < 1e-5, f"{output} is off by {off}"


@pytest.mark.parametrize("kernels", BF16)
@pytest.mark.parametrize("name", CONFIGS)
def test_bf16_is_near(name: str, kernels: Kernels) -> None:
    """Of random weights, whose gates are closer than trained ones: most of what is off is another expert."""
    config = only(CONFIGS[name], name)
    content = made(config)
    dn, metadata = tiles(config, 6)
    expected = outputs_of(session(content), dn, metadata)
    found = dict(zip(OUTPUTS, opened(content, config, kernels).run(dn, metadata, OUTPUTS), strict=True))
    for output in ("mean", "patch_mean"):  # where a patch's tokens are alike, many change together
        near = cosine(found[output], expected[output])
        assert np.median(near) > MIN_COSINE["mean"]
        assert near.min() > 0.99
    assert np.median(cosine(found["tokens"], expected["tokens"])) > 0.999
    assert not np.array_equal(found["tokens"], expected["tokens"])
    # Nearly every choice of an expert is the same; every token still has its experts, top_k of them.
    assert np.abs(found["routing"] - expected["routing"]).mean() < 0.01
    assert np.allclose(found["routing"].sum(axis=-1), 1)


@pytest.mark.skipif("amx" not in ABLE, reason="no AMX")
def test_both_kinds_of_bf16_round_the_same_numbers() -> None:
    config = CONFIGS["S"]
    content = made(config)
    dn, metadata = tiles(config, 6)
    one, other = (opened(content, config, k).run(dn, metadata, ("tokens",))[0] for k in ("bf16", "amx"))
    assert np.median(np.abs(one - other)) < 1e-3 * np.abs(one).max()
    assert (cosine(one, other) > 0.9999).mean() > 0.99


@pytest.mark.parametrize("kernels", ABLE)
def test_scores_beyond_the_range_of_exponentials(kernels: Kernels) -> None:
    """Queries a hundred times as large: softmax has to be taken of differences, and is nearly one-hot."""
    checkpoint = scrambled(SMALL)
    with torch.no_grad():
        for layer in checkpoint.model.encoder.layers:
            layer.attn.q_proj.weight *= 100
    content = onnx_bytes(checkpoint.model.encoder)
    assert b"layer.0.lowered" in content
    dn, metadata = tiles(SMALL, 4)
    expected = outputs_of(session(content), dn, metadata)
    tokens, mean = opened(content, SMALL, kernels).run(dn, metadata, ("tokens", "mean"))
    assert np.isfinite(tokens).all()
    if kernels in FP32:
        assert np.abs(tokens - expected["tokens"]).max() < 1e-3 * np.abs(expected["tokens"]).max()
    assert cosine(mean, expected["mean"]).min() > 0.99


@pytest.mark.parametrize("kernels", ABLE)
def test_a_tile_is_bitwise_the_same_in_any_batch_and_with_any_threads(kernels: Kernels) -> None:
    config = CONFIGS["S"]
    content = made(config)
    dn, metadata = tiles(config, 11)
    together = opened(content, config, kernels).run(dn, metadata, OUTPUTS)
    for chunk, threads, start in [(1, 1, 3), (4, 1, 6), (3, 2, 0), (1, 3, 8), (8, 4, 1)]:
        some = opened(content, config, kernels, chunk=chunk, threads=threads).run(
            dn[start:], metadata[start:], OUTPUTS
        )
        for name, one, other in zip(OUTPUTS, some, together, strict=True):
            assert one.tobytes() == other[start:].tobytes(), (name, chunk, threads)


@pytest.mark.parametrize("kernels", ABLE)
def test_a_tile_that_is_not_finite_spoils_no_other(kernels: Kernels) -> None:
    config = SMALL
    content = made(config)
    running = opened(content, config, kernels)
    dn, metadata = tiles(config, 6)
    before = running.run(dn, metadata, ("tokens",))[0]
    spoilt = metadata.copy()
    spoilt[2] = np.inf
    after = running.run(dn, spoilt, ("tokens",))[0]
    assert np.isnan(after[2]).all()  # as every token has attended to one that is
    assert running.run(dn, metadata, ("tokens",))[0].tobytes() == before.tobytes()
    others = [0, 1, 3, 4, 5]
    assert after[others].tobytes() == before[others].tobytes()


def test_callers_of_one_session_wait_for_each_other() -> None:
    config = CONFIGS["S"]
    running = opened(made(config), config, FP32[0], threads=2)
    batches = [tiles(config, 1 + i % 3, seed=i) for i in range(12)]
    expected = [running.run(*batch, ("mean",))[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: running.run(*batch, ("mean",))[0], batches))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # what is tried here
def test_a_forked_process_is_told_instead_of_waiting_for_threads_that_it_has_not() -> None:
    running = opened(made(SMALL), SMALL, FP32[0], threads=2)
    dn, metadata = tiles(SMALL, 1)
    running.run(dn, metadata, ["mean"])
    child = os.fork()
    if child == 0:
        try:
            running.run(dn, metadata, ["mean"])
        except KernelsError:
            os._exit(7)
        os._exit(1)
    for _ in range(100):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the forked process hangs")
    assert os.waitstatus_to_exitcode(status) == 7
    running.run(dn, metadata, ["mean"])


def test_arrays_that_are_not_tiles_are_refused() -> None:
    running = opened(made(SMALL), SMALL, FP32[0])
    dn, metadata = tiles(SMALL, 2)
    with pytest.raises(ValueError, match=r"tiles \(2, 7, 40, 39\)"):
        running.run(dn[..., :39], metadata, ("mean",))
    with pytest.raises(ValueError, match=r"metadata \(1, 4, 2\)"):
        running.run(dn, metadata[:1], ("mean",))
    with pytest.raises(ValueError, match="tiles int16"):
        running.run(dn.astype(np.int16), metadata, ("mean",))
    strided = np.asfortranarray(dn)
    assert np.array_equal(
        running.run(strided, metadata, ("mean",))[0], running.run(dn, metadata, ("mean",))[0]
    )
    assert running.run(dn[:0], metadata[:0], ("mean",))[0].shape == (0, 24)


def test_an_encoder_that_is_too_large_is_refused() -> None:
    config = replace(SMALL, embed_dim=260, num_heads=2, num_groups=1)  # heads of 130
    with pytest.raises(KernelsError, match="larger than the kernels allow"):
        opened(made(config), config, FP32[0])


class Cpu:
    """In the library's place, of a CPU that can run these kernels."""

    def __init__(self, *kernels: Kernels) -> None:
        self._names = {f"landmoe_supports_{name}" for name in kernels}

    def __getattr__(self, name: str) -> Callable[[], int]:
        return lambda: int(name in self._names)


def test_the_fastest_that_a_cpu_can_run_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*kernels: Kernels) -> tuple[Kernels | str, Kernels | str]:
        monkeypatch.setattr(native, "_library", lambda _: Cpu(*kernels))
        return (
            native.unusable("fp32") or native.kernels("fp32"),
            native.unusable("bf16") or native.kernels("bf16"),
        )

    no_bf16 = "this CPU has no AVX-512 with BF16, which landmoe's kernels in bf16 need"
    assert of("fp32", "avx2", "bf16", "amx") == ("fp32", "amx")
    assert of("fp32", "avx2", "bf16") == ("fp32", "bf16")
    assert of("fp32", "avx2") == ("fp32", no_bf16)
    assert of("avx2") == ("avx2", no_bf16)
    assert of() == ("this CPU has no AVX2 with FMA, which landmoe's kernels in fp32 need", no_bf16)


def test_a_package_without_them_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(native, "LIBRARY", native.LIBRARY.with_name("missing.so"))
    assert "without its kernels" in str(native.unusable("fp32"))
    monkeypatch.setattr(native, "LIBRARY", native.LIBRARY.with_name("encoder.c"))
    assert "cannot be loaded" in str(native.unusable("fp32"))
