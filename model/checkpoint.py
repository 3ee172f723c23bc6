"""Checkpoints: one safetensors file with the weights and, in its header, what they are."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import PREPROCESSING_VERSION, ModelConfig, Preprocessing
from model.moe_mae import MoEMAE
from model.targets import Targets

FORMAT = 1
HEADER_KEY = "landmoe_checkpoint"
NAMED = 10  # tensors of a kind that an error lists before it only counts


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights with everything that is needed to use them.

    `info` is free JSON: name, version, `trained` (bool), training data, recipe, metrics.
    """

    model: MoEMAE  # in evaluation mode
    preprocessing: Preprocessing
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        """The network's architecture."""
        return self.model.config


def build(
    config: ModelConfig,
    preprocessing: Preprocessing,
    state: dict[str, Tensor],
    info: dict[str, Any],
    targets: Targets = "absolute",
) -> Checkpoint:
    """A checkpoint from a state dict in our layout.

    Raises:
        CheckpointError: missing or surplus keys or wrong shapes, each named.
    """
    model = MoEMAE(config, preprocessing, targets)
    check_layout(
        {name: tuple(t.shape) for name, t in model.state_dict().items()},
        {name: tuple(t.shape) for name, t in state.items()},
    )
    model.load_state_dict(state)
    return Checkpoint(model.eval(), preprocessing, info)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` at once or not at all.

    Raises:
        CheckpointError: it is a folder, or cannot be written, as on a full disk.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected the name of a file")
    header = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "targets": checkpoint.model.targets,
        "info": checkpoint.info,
    }
    state = {name: t.detach().cpu().contiguous() for name, t in checkpoint.model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(state, partial, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error})") from error
    partial.chmod(0o644)  # the library leaves 0600, which another user (a container's) could not read
    partial.replace(path)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint written by `save`.

    Raises:
        CheckpointError: no such file, not a safetensors file, another program's, or damaged.
    """
    if path.is_dir():
        found = sorted(str(file) for file in path.glob("*.safetensors"))
        which = f"one of its files, {' or '.join(found[:NAMED])}" if found else "a .safetensors file"
        raise CheckpointError(f"{path} is a folder; expected {which}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if text is None:
        raise CheckpointError(
            f"{path}: no '{HEADER_KEY}' header, so not a landmoe checkpoint; "
            "published .pth files come in through `landmoe-train import-reference`"
        )
    try:
        header = json.loads(text)
        version = header["format"]
        if version != FORMAT:
            raise CheckpointError(f"{path}: checkpoint format {version}, this release reads {FORMAT}")
        config = ModelConfig.from_dict(header["config"])
        preprocessing = Preprocessing.from_dict(header["preprocessing"])
        if preprocessing.version > PREPROCESSING_VERSION:
            raise CheckpointError(
                f"{path} was made for preprocessing version {preprocessing.version}; this program knows "
                f"versions up to {PREPROCESSING_VERSION}: a newer landmoe is needed"
            )
        targets = header.get("targets", "absolute")  # none in files from before there was a choice
        if targets not in get_args(Targets):
            raise CheckpointError(f"{path}: targets {targets!r}; expected one of {get_args(Targets)}")
        return build(config, preprocessing, state, header["info"], targets)
    except CheckpointError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: the header cannot be read ({error})") from error


def initialise(config: ModelConfig, seed: int, preprocessing: Preprocessing | None = None) -> Checkpoint:
    """An untrained network, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MoEMAE(config, preprocessing)
    info = {"trained": False, "seed": seed}
    return Checkpoint(model.eval(), preprocessing or Preprocessing(), info)


def check_layout(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Compare tensor names and shapes.

    Raises:
        CheckpointError: naming what is missing, surplus, or of another shape.
    """
    problems = {
        "wrong shape": [
            f"{name} {list(found[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
        "missing": [f"{name} {list(shape)}" for name, shape in expected.items() if name not in found],
        "surplus": [f"{name} {list(shape)}" for name, shape in found.items() if name not in expected],
    }
    if any(problems.values()):
        listed = [
            f"{kind}: {', '.join(names[:NAMED])}"
            + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            for kind, names in problems.items()
            if names
        ]
        raise CheckpointError(f"the weights do not fit the architecture ({'; '.join(listed)})")
