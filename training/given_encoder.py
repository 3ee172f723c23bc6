"""The finished encoder that a decoder is trained on: it stays as it is, and so does what its inputs mean."""

from __future__ import annotations

import torch

from model.checkpoint import Checkpoint, CheckpointError
from model.moe_mae import MoEMAE
from training.recipe import PretrainConfig


def followed(config: PretrainConfig, found: Checkpoint) -> PretrainConfig:
    """The recipe with what the encoder decides: what invalid pixels are fed as.

    Raises:
        CheckpointError: it is of another architecture, or was trained in a way that the recipe contradicts.
    """
    if found.config != config.architecture:
        raise CheckpointError(f"the encoder to start from is {found.config}; expected {config.architecture}")
    data, own = config.data, found.preprocessing
    contradictions = []
    if "nodata_fill" in data.model_fields_set and data.nodata_fill != own.nodata_fill:
        contradictions.append(
            f"data.nodata_fill is {data.nodata_fill} and was {own.nodata_fill} (leave it out, or give that)"
        )
    for name, share in (("drop_metadata", data.drop_metadata), ("drop_field", data.drop_field)):
        if share > 0 and not own.missing_metadata_trained:
            contradictions.append(f"data.{name} is {share:g} and missing metadata were never seen (give 0)")
    if contradictions:
        raise CheckpointError(
            f"{config.encoder}: the encoder stays as it was trained, otherwise than this recipe says: "
            + "; ".join(contradictions)
        )
    return config.model_copy(
        update={"data": data.model_copy(update={"nodata_fill": own.nodata_fill})},
    )


def start_from(model: MoEMAE, found: Checkpoint) -> None:
    """Take a checkpoint's weights, and keep those of the encoder out of training.

    Where the targets are others, the decoder's last layer starts at zero instead: at the guess that they are
    relative to.

    Args:
        model: of the checkpoint's architecture and preprocessing.
        found: the checkpoint.
    """
    model.load_state_dict(found.model.state_dict())
    if found.model.targets != model.targets:
        torch.nn.init.zeros_(model.decoder_pred.weight)
        torch.nn.init.zeros_(model.decoder_pred.bias)
    model.encoder.requires_grad_(requires_grad=False)
