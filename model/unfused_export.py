"""The unfused encoder as PyTorch's own exporter writes it to ONNX: what the fused graph is compared with."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from model.config import NUM_METADATA_TOKENS
from model.moe_mae import Encoder

OPSET = 18
_EXAMPLES = 2  # with one, the exporter would take the batch for a constant


class MeanEmbedding(nn.Module):
    """Raw DN of any dtype [B, C, S, S] and metadata [B, 4, 2] to the mean over all tokens, [B, m]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, dn: Tensor, metadata: Tensor) -> Tensor:
        """Embed a batch."""
        return self.encoder(self.encoder.standardise(dn), metadata).tokens.mean(1)  # type: ignore[no-any-return]


def export_unfused(encoder: Encoder) -> bytes:
    """An ONNX model with the inputs `dn` and `metadata`, both float32, and the output `mean`; any batch.

    The experts are in their dense form: of a loop over the tokens that chose an expert, with its
    data-dependent shapes, the exporter makes no graph that holds for other tiles.
    """
    cfg = encoder.config
    inputs = (
        torch.full((_EXAMPLES, cfg.in_channels, cfg.image_size, cfg.image_size), 10_000.0),
        torch.zeros(_EXAMPLES, NUM_METADATA_TOKENS, 2),
    )
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "unfused.onnx"
        # Of the trace (the checks of shapes become constants, which is meant), and that a slower exporter,
        # which needs another package, is the default.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            MeanEmbedding(encoder).eval(),
            inputs,
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["dn", "metadata"],
            output_names=["mean"],
            dynamic_axes={"dn": {0: "B"}, "metadata": {0: "B"}},
        )
        return file.read_bytes()
