"""The layout of the published checkpoints, and their import.

The published state dict repeats tensors that are one: V and W2 stand under every expert's name, and the
root's `patch_embed` is the encoder's `patch_proj`. We store one copy of each.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import Checkpoint, CheckpointError, build, check_layout
from model.config import SIZES, ConfigError, ModelConfig, Preprocessing
from model.moe_mae import MoEMAE

# Names in the published code's configuration → ours.
CONFIG_NAMES = {
    "embed_dim": "embed_dim",
    "depth": "depth",
    "dfirsth": "first_hidden",
    "dlasth": "last_hidden",
    "num_heads": "num_heads",
    "num_groups": "num_groups",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
    "decoder_embed": "decoder_dim",
}

_EXPERTS = re.compile(r"(?P<layer>.*layers\.\d+)\.experts\.(?P<part>W|V|W2)\.(?P<kind>weight|bias)")
_GATE = re.compile(r"(?P<layer>.*layers\.\d+)\.gate\.(?P<rest>.*)")
_ALIASES = {f"patch_embed.{kind}": f"encoder.patch_proj.{kind}" for kind in ("weight", "bias")}


def import_reference(path: Path, config: ModelConfig | None = None, *, published: bool = False) -> Checkpoint:
    """Turn a published-layout `.pth` into our checkpoint.

    Args:
        path: a dict with `model_state`, or a bare state dict. Read with `weights_only`: no code in it runs.
        config: the architecture; found among the published sizes without it.
        published: the weights are the published ones, which were trained with the hour read from one digit.

    Raises:
        CheckpointError: unreadable, or missing and surplus keys, wrong shapes, repeated tensors that differ.
    """
    stored = _read(path)
    state = stored.get("model_state", stored)
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(
            f"{path}: expected a dict of tensors under 'model_state'; found {type(state).__name__}"
        )
    config = config or _recognise(state, path)
    loss = stored.get("best_train_loss", 0.0)
    info: dict[str, Any] = {
        "name": path.stem,
        "trained": isinstance(loss, float) and math.isfinite(loss),
        "imported_from": path.name,
        "epoch": stored.get("epoch") if isinstance(stored.get("epoch"), int) else None,
    }
    preprocessing = replace(Preprocessing(), hour_convention="first_digit" if published else "full")
    try:
        return build(config, preprocessing, from_published(state, config), info)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def to_published(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict in the published layout, shared tensors repeated (as views)."""
    experts = _experts(config)
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if match := _EXPERTS.fullmatch(name):
            layer, part, kind = match["layer"], match["part"], match["kind"]
            count = experts[layer]
            copies = tensor.chunk(count) if part == "W" else (tensor,) * count
            for e, copy in enumerate(copies):
                out[f"{layer}.moe.experts.{e}.{part}.{kind}"] = copy
        elif match := _GATE.fullmatch(name):
            out[f"{match['layer']}.moe.gate.{match['rest']}"] = tensor
        else:
            out[name] = tensor
    return out | {alias: out[name] for alias, name in _ALIASES.items()}


def from_published(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `to_published`.

    Raises:
        CheckpointError: missing and surplus keys, wrong shapes, repeated tensors that differ, values that
            are not finite.
    """
    with torch.device("meta"):
        ours = MoEMAE(config).state_dict()
    expected = {name: tuple(t.shape) for name, t in to_published(ours, config).items()}
    check_layout(expected, {name: tuple(t.shape) for name, t in state.items()})
    bad = [name for name, t in state.items() if not torch.isfinite(t).all()]
    if bad:
        raise CheckpointError(f"weights that are not finite: {', '.join(bad[:10])}")
    for alias, name in _ALIASES.items():
        _must_equal(state, alias, name)
    experts = _experts(config)
    out: dict[str, Tensor] = {}
    for name in ours:
        if match := _EXPERTS.fullmatch(name):
            layer, part, kind = match["layer"], match["part"], match["kind"]
            names = [f"{layer}.moe.experts.{e}.{part}.{kind}" for e in range(experts[layer])]
            if part == "W":
                out[name] = torch.cat([state[n] for n in names]).float()
            else:
                for other in names[1:]:
                    _must_equal(state, other, names[0])
                out[name] = state[names[0]].float()
        elif match := _GATE.fullmatch(name):
            out[name] = state[f"{match['layer']}.moe.gate.{match['rest']}"].float()
        else:
            out[name] = state[name].float()
    return out


def read_config(path: Path) -> ModelConfig:
    """An architecture from a JSON file with the published names or ours.

    Raises:
        ConfigError: not JSON, unknown or missing names, impossible sizes.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected an object, found {type(values).__name__}")
    if "first_hidden" in values:
        return ModelConfig.from_dict(values)
    unknown = sorted(values.keys() - CONFIG_NAMES.keys())
    missing = sorted(
        CONFIG_NAMES.keys() - values.keys() - {"decoder_embed", "img_size", "patch_size", "in_chans"}
    )
    if unknown or missing:
        raise ConfigError(f"{path}: unknown {unknown or 'nothing'}, missing {missing or 'nothing'}")
    ours = {CONFIG_NAMES[name]: value for name, value in values.items()}
    if isinstance(ours.get("decoder_dim"), int):
        ours["decoder_hidden"] = ours["decoder_dim"] // 2  # as the published decoder: 54 of 108
    return ModelConfig(**ours)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        # Its own message advises loading it unsafely: it stays in the traceback.
        raise CheckpointError(
            f"{path}: not a PyTorch file of plain tensors: damaged, foreign, or it holds other objects"
        ) from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(stored).__name__}")
    return stored


def _recognise(state: dict[str, Tensor], path: Path) -> ModelConfig:
    positions = state.get("encoder.pos_embed")
    dim = positions.shape[-1] if positions is not None and positions.ndim else None
    for config in SIZES.values():
        if config.embed_dim == dim:
            return config
    known = ", ".join(f"{name} ({config.embed_dim})" for name, config in SIZES.items())
    raise CheckpointError(
        f"{path}: embedding dimension {dim} is none of the published sizes {known}; give its --config"
    )


def _experts(config: ModelConfig) -> dict[str, int]:
    encoder = {f"encoder.layers.{i}": count for i, count in enumerate(config.num_experts)}
    return encoder | {f"decoder_layers.{i}": config.decoder_experts for i in range(config.decoder_depth)}


def _must_equal(state: dict[str, Tensor], name: str, original: str) -> None:
    if not torch.equal(state[name], state[original]):
        raise CheckpointError(
            f"{name} differs from {original}, of which it is a copy in the published layout"
        )
