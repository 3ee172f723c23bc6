"""Networks for tests of the export: small, and with every weight different from its initial value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from model.checkpoint import Checkpoint, initialise
from model.config import ModelConfig, Preprocessing
from model.fused import fuse
from model.graph import to_onnx
from model.moe_mae import Encoder
from model.outputs import POOLINGS

GOLDEN = Path(__file__).parents[1] / "golden"

# Three heads a group, so that the order of heads matters; odd hidden dimensions; 3, 4 and 5 experts.
SMALL = ModelConfig(
    embed_dim=24, depth=4, first_hidden=13, last_hidden=7, num_heads=6, num_groups=2,
    decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


def scrambled(config: ModelConfig = SMALL, seed: int = 0) -> Checkpoint:
    """A network in which scale and shift of the normalisations and all biases matter."""
    statistics = replace(
        Preprocessing(), mean=tuple(9_000.0 + 500 * i for i in range(7)), std=(900.0, *(4_000.0,) * 6)
    )
    checkpoint = initialise(config, seed, statistics)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return checkpoint


def session(onnx_model: bytes | Path, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx_model if isinstance(onnx_model, bytes) else str(onnx_model)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_bytes(encoder: Encoder) -> bytes:
    serialised: bytes = to_onnx(fuse(encoder)).SerializeToString(deterministic=True)
    return serialised


def run(
    running: ort.InferenceSession, dn: NDArray[np.uint16], metadata: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    return dict(zip(POOLINGS, running.run(list(POOLINGS), {"dn": dn, "metadata": metadata}), strict=True))


def inputs(count: int, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Tiles around a level that differs by tile and band, with metadata, some of it missing."""
    rng = np.random.default_rng(seed)
    dn = rng.normal(10_000, 3_000, (count, 7, 1, 1)) + rng.normal(0, 800, (count, 7, 40, 40))
    angle = rng.uniform(-np.pi, np.pi, (count, 4))
    metadata = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    metadata[::3, rng.integers(4)] = 0
    return np.clip(np.rint(dn), 0, 65535).astype(np.uint16), metadata.astype(np.float32)


def unfused(encoder: Encoder, dn: NDArray[np.uint16], metadata: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tokens of the torch network."""
    with torch.inference_mode():
        z = encoder.standardise(torch.from_numpy(dn.astype(np.int32)))
        tokens: NDArray[np.float32] = encoder(z, torch.from_numpy(metadata)).tokens.numpy()
    return tokens
