"""What embeds a batch: our engine in its precisions, and the networks that it is measured against.

The baselines need torch and have random weights of the bundle's architecture, since a bundle holds no weights
that torch could load; what they compute takes as long with any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model.bundle import BundleError
from model.config import ModelConfig
from service.encoder_engine import make_engine
from service.engine import Engine, EngineError
from service.settings import Settings

Batch = tuple[NDArray[np.uint16], NDArray[np.float32]]
Embed = Callable[[NDArray[np.uint16], NDArray[np.float32]], NDArray[np.float32]]
"""Tiles uint16 (B, 7, 40, 40) and encodings float32 (B, 4, 2) to the mean over all tokens, float32 (B, m)."""

EXACT_ONNX = "exact, onnxruntime"  # ours without the kernels
LOOP, DENSE, NAIVE_ONNX = "torch loop", "torch dense", "naive onnx"
_NEEDS_TORCH = "torch is not installed; pip install 'landmoe[train]'"


def ours(settings: Settings) -> tuple[dict[str, Embed], dict[str, Engine], dict[str, str]]:
    """Our engine, `exact` and `fast`, and where kernels compute exact, without them too.

    Returns:
        How each embeds a batch, the engines themselves, and why those that are missing are.

    Raises:
        BundleError, EngineError: not even exact can be had.
    """
    engines: dict[str, Engine] = {"exact": make_engine(settings.model_copy(update={"precision": "exact"}))}
    absent = {}
    if engines["exact"].runtime == "kernels":
        without = settings.model_copy(update={"precision": "exact", "kernels": False})
        engines[EXACT_ONNX] = make_engine(without)
    try:
        engines["fast"] = make_engine(settings.model_copy(update={"precision": "fast"}))
    except (BundleError, EngineError) as error:
        absent["fast"] = str(error)
    return {name: in_chunks(engine) for name, engine in engines.items()}, engines, absent


def in_chunks(engine: Engine) -> Embed:
    """A batch as the service runs it: a lone tile with all threads, more in chunks on all workers at once."""
    pool = ThreadPoolExecutor(engine.concurrency, thread_name_prefix="bench")

    def embed(dn: NDArray[np.uint16], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(dn) == 1:
            return engine.run(dn, metadata, ("mean",), alone=True)["mean"]
        parts = pool.map(
            lambda cut: engine.run(dn[cut], metadata[cut], ("mean",))["mean"], _cuts(engine, len(dn))
        )
        return np.concatenate(list(parts))

    return embed


def _cuts(engine: Engine, count: int) -> list[slice]:
    """Batches as the service's batcher makes them: smaller as fewer tiles are left, but not than a chunk."""
    cuts: list[slice] = []
    start = 0
    while start < count:
        left, idle = count - start, max(1, engine.concurrency - len(cuts))
        size = max(math.ceil(left / engine.concurrency), min(engine.chunk_size, math.ceil(left / idle)))
        cuts.append(slice(start, start + min(size, engine.batch_size)))
        start = cuts[-1].stop
    return cuts


def baselines(config: ModelConfig, threads: int) -> tuple[dict[str, Embed], dict[str, str]]:
    """The unfused network in PyTorch, with the published loop over experts and dense, and exported as it is.

    Args:
        config: its architecture.
        threads: of PyTorch; an ONNX Runtime session with default settings takes as many as there are cores.

    Returns:
        How each embeds a batch; and why those that are missing are.
    """
    try:
        import torch
    except ImportError:
        return {}, dict.fromkeys((LOOP, DENSE, NAIVE_ONNX), _NEEDS_TORCH)
    import copy

    from model.expert_loop import with_looped_experts
    from model.moe_mae import MoEMAE
    from model.unfused_export import MeanEmbedding, export_unfused

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dense = MoEMAE(config).eval()
    looped = with_looped_experts(copy.deepcopy(dense))
    session = ort.InferenceSession(export_unfused(dense.encoder), providers=["CPUExecutionProvider"])

    def eager(network: MeanEmbedding) -> Embed:
        def embed(dn: NDArray[np.uint16], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                found = network(torch.from_numpy(dn.astype(np.float32)), torch.from_numpy(metadata))
                return found.numpy()  # type: ignore[no-any-return]

        return embed

    def exported(dn: NDArray[np.uint16], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(["mean"], {"dn": dn.astype(np.float32), "metadata": metadata})[0]  # type: ignore[no-any-return]

    return {
        LOOP: eager(MeanEmbedding(looped.encoder)),
        DENSE: eager(MeanEmbedding(dense.encoder)),
        NAIVE_ONNX: exported,
    }, {}


def batch(config: ModelConfig, size: int) -> Batch:
    """Tiles of noise around usual values, and encodings; the same every time."""
    rng = np.random.default_rng(0)
    shape = (size, config.in_channels, config.image_size, config.image_size)
    dn = rng.integers(7_000, 20_000, shape, dtype=np.uint16)
    return dn, rng.uniform(-1, 1, (size, 4, 2)).astype(np.float32)
