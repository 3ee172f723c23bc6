"""Checkpoint to bundle: fuse the encoder, write it as ONNX, measure it against the network, write it out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import bundle_writer
from model.bundle import Bundle
from model.checkpoint import Checkpoint
from model.config import SIZES, ModelConfig
from model.deviation import measure_deviation
from model.fused import FusedEncoder, fuse
from model.graph import to_onnx
from model.graph_nodes import GraphError
from model.padding import padded
from model.parity import Parity, measure

PRECISIONS = ("fp32", "fp16")  # fp32 is in every bundle; fp16 is for GPUs

VERSION = "0.1.0"  # of weights that came without one
# Of the bundle itself; the rest is `training`.
_OWN_FIELDS = ("name", "version", "trained", "metrics", "card")


class ExportError(Exception):
    """The exported encoder is not the network; the message gives the figures."""


def export(
    checkpoint: Checkpoint,
    path: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    precisions: Sequence[str] = ("fp32",),
) -> Bundle:
    """Write the bundle of a checkpoint, or nothing.

    Name, version, training data, metrics and card are taken from the checkpoint's `info`.

    Args:
        checkpoint: the network and its preprocessing.
        path: folder of the bundle; an older bundle there is replaced.
        name: instead of the checkpoint's.
        version: instead of the checkpoint's.
        precisions: of the encoders; fp32 is always among them.

    Raises:
        ExportError: the ONNX form differs from the network by more than the tolerance (see parity.py), or
            another precision from fp32 by more than its bounds (see deviation.py); an unknown precision.
        BundleError: a folder that is not a bundle, a name that does not fit.
    """
    if unknown := sorted(set(precisions) - set(PRECISIONS)):
        raise ExportError(f"no encoder in {', '.join(unknown)}; expected some of {', '.join(PRECISIONS)}")
    encoder = checkpoint.model.encoder.eval()
    fused = fuse(encoder)
    onnx_model: bytes = to_onnx(fused).SerializeToString(deterministic=True)
    parity = measure(encoder, onnx_model)
    if not parity.passed:
        raise ExportError(f"no bundle written: {parity}")
    files, measured = {"encoder.fp32.onnx": onnx_model}, {"fp32": parity.to_dict()}
    if "fp16" in precisions:
        files["encoder.fp16.onnx"], measured["fp16"] = _half(fused, onnx_model)
    info = checkpoint.info
    trained = info.get("trained") is True
    title = name or str(info.get("name") or _name(checkpoint.config, trained=trained))
    training = {key: value for key, value in info.items() if key not in _OWN_FIELDS}
    return bundle_writer.write(
        path,
        name=title,
        version=version or str(info.get("version") or VERSION),
        trained=trained,
        config=checkpoint.config,
        preprocessing=checkpoint.preprocessing,
        training=training,
        metrics=info.get("metrics", {}),
        parity=measured,
        card=info.get("card") or _card(title, checkpoint, training, parity, trained=trained),
        files=files,
    )


def _half(fused: FusedEncoder, exact: bytes) -> tuple[bytes, dict[str, Any]]:
    """The encoder for GPUs, serialised, and its measured deviation from the exact one."""
    try:
        content: bytes = to_onnx(padded(fused), half=True).SerializeToString(deterministic=True)
    except GraphError as error:
        raise ExportError(f"no bundle written: no fp16 encoder can be made: {error}") from error
    deviation = measure_deviation(exact, content, fused.config, "fp16")
    if not deviation.passed:
        raise ExportError(f"no bundle written: {deviation}")
    return content, deviation.to_dict()


def _name(config: ModelConfig, *, trained: bool) -> str:
    size = next((size.lower() for size, known in SIZES.items() if known == config), "custom")
    return f"landmoe-{size}" if trained else f"landmoe-{size}-untrained"


_UNTRAINED = """\
> **These weights are untrained**: {origin}. They are for trying the service and for building against it.
> Embeddings have the right shape, are deterministic and differ from tile to tile, but nothing was learned:
> do not use them as features.

"""


def _origin(config: ModelConfig, seed: Any) -> str:
    if not isinstance(seed, int):
        return "a random initialisation"
    size = next((size for size, known in SIZES.items() if known == config), None)
    command = f" (`landmoe-train init --size {size} --seed {seed}`)" if size else ""
    return f"a random initialisation with seed {seed}{command}"


def _card(
    name: str, checkpoint: Checkpoint, training: dict[str, Any], parity: Parity, *, trained: bool
) -> str:
    """A model card from what the checkpoint knows; a trained one usually brings its own."""
    cfg, pre = checkpoint.config, checkpoint.preprocessing
    warning = "" if trained else _UNTRAINED.format(origin=_origin(checkpoint.config, training.get("seed")))
    missing = "was" if pre.missing_metadata_trained else "was not"
    fill = "the band's mean" if pre.nodata_fill == "band_mean" else "they are (zeros included)"
    parameters = sum(p.numel() for p in checkpoint.model.encoder.parameters())
    return f"""# {name}

{warning}Encoder of a metadata-aware mixture-of-experts masked autoencoder (arXiv 2509.10919) for Landsat
tiles: {cfg.in_channels} bands (SR_B1 to SR_B7), {cfg.image_size} x {cfg.image_size} pixels at 30 m, with time
and place. {parameters:,} parameters.

| | |
|---|---|
| embedding dimension | {cfg.embed_dim} |
| layers | {cfg.depth} |
| experts in a layer | {min(cfg.num_experts)} to {max(cfg.num_experts)}, {cfg.top_k} for each token |
| expert hidden dimension | {cfg.first_hidden} to {cfg.last_hidden} |
| tokens | {cfg.num_tokens}: week, hour, latitude, longitude, cls, {cfg.num_patches} patches |

## Inputs

Collection-2 Level-2 surface reflectance as digital numbers; the z-score is part of the network. Invalid
pixels are fed as {fill}. Missing metadata (zeros) {missing} part of training.
Hour convention: `{pre.hour_convention}`.

## Training

```json
{json.dumps(training, indent=2, sort_keys=True, ensure_ascii=False)}
```

## Exactness

The fp32 encoder was compared with the unfused network on {parity.tiles} tiles (CPU): largest difference
{parity.max_relative_error:.1e} of a tile's largest token value, tolerance {parity.tolerance:g}.
"""
