from __future__ import annotations

import copy

import numpy as np
import onnxruntime as ort
import pytest
import torch

from model.config import ModelConfig
from model.expert_loop import with_looped_experts
from model.fused import fuse
from model.graph import to_onnx
from model.moe_mae import MoEMAE
from model.unfused_export import MeanEmbedding, export_unfused

CONFIG = ModelConfig(
    embed_dim=24, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2, dropout=0.1,
    image_size=16, decoder_dim=12, decoder_hidden=6,
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 5])
def test_every_contender_gives_the_same_embeddings(size: int) -> None:
    """What the engine is compared with computes what it computes: loop, dense, both exports."""
    torch.manual_seed(0)
    model = MoEMAE(CONFIG).eval()
    dn = np.random.default_rng(1).integers(6_000, 20_000, (size, 7, 16, 16), dtype=np.uint16)
    metadata = np.random.default_rng(2).uniform(-1, 1, (size, 4, 2)).astype(np.float32)
    looped = with_looped_experts(copy.deepcopy(model))
    floats = dn.astype(np.float32)
    with torch.inference_mode():
        found = {
            name: MeanEmbedding(network.encoder)(torch.from_numpy(floats), torch.from_numpy(metadata)).numpy()
            for name, network in (("dense", model), ("loop", looped))
        }
    naive = ort.InferenceSession(export_unfused(model.encoder), providers=["CPUExecutionProvider"])
    found["naive"] = naive.run(["mean"], {"dn": floats, "metadata": metadata})[0]
    fused = ort.InferenceSession(
        to_onnx(fuse(model.encoder)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = fused.run(["mean"], {"dn": dn, "metadata": metadata})[0]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)
