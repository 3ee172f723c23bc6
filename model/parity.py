"""How far an exported encoder is from the unfused network: the measurement that an export must pass.

Both see the same tiles: noise over the whole range of DN, extremes, constant tiles, smooth synthetic land,
tiles with nodata, empty tiles, each with any of the four metadata fields known or missing. An error is the
largest absolute difference of a tile, over all outputs, as a share of the tile's largest token value.

Where a token's second and third best experts have almost the same gate logit, rounding decides which one it
takes, in the network itself as well (another machine or thread count may decide otherwise). Such close
decisions are counted. A tile that differs is excused only if the network gives what the ONNX form gave once
the two experts of a close decision change places, or once it sees the tile alone. No export is accepted where
close decisions are common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from model.config import NUM_METADATA_TOKENS, ModelConfig
from model.layers import Block
from model.moe_mae import Encoder, pooled
from model.outputs import POOLINGS

PROVIDER = "CPUExecutionProvider"
TOLERANCE = 1e-5  # of a tile's largest token value
CLOSE_ROUTING = 1e-5  # second minus third gate logit, below which rounding may decide
MAX_CLOSE = 1e-3  # share of routing decisions (one for each token and layer) that may be as close
BATCHES = (1, 3, 8, 33)  # one, odd, the usual, and one more than a power of two
ROUNDS = 3
MAX_TRIALS = 20  # close decisions of a tile that are tried as its explanation; more than one is unusual

Array = NDArray[np.float32]


@dataclass
class Parity:
    """What was measured, over `tiles` tiles."""

    tolerance: float = TOLERANCE
    tiles: int = 0
    max_relative_error: float = 0.0  # of all tiles but the flipped ones
    failed: int = 0  # over the tolerance
    close_routing: int = 0  # with a close decision
    flipped: int = 0  # of these, over the tolerance, and explained by that decision
    decisions: int = 0  # of routing: tiles x layers x tokens
    close_decisions: int = 0  # with a margin below CLOSE_ROUTING
    max_batch_difference: float = 0.0  # a tile alone against the same in its batch; 0 = bitwise equal
    worst: dict[str, float] = field(default_factory=dict)  # output → largest relative error

    @property
    def passed(self) -> bool:
        """Whether the export is faithful."""
        return self.tiles > 0 and not self.failed and self.close_decisions < MAX_CLOSE * self.decisions

    def to_dict(self) -> dict[str, Any]:
        """For the bundle's record."""
        return {
            "provider": PROVIDER,
            "runtime": f"onnxruntime {ort.__version__}",
            "tolerance": self.tolerance,
            "max_relative_error": self.max_relative_error,
            "by_output": dict(self.worst),
            "tiles": self.tiles,
            "batches": list(BATCHES),
            "close_routing_tiles": self.close_routing,
            "flipped_tiles": self.flipped,
            "routing_decisions": self.decisions,
            "close_decisions": self.close_decisions,
            "max_batch_difference": self.max_batch_difference,
        }

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.tiles} tiles differ from the network by more than {self.tolerance:g} of "
            f"their largest token, the largest difference is {self.max_relative_error:.2g}; "
            f"{self.close_decisions} of {self.decisions} routing decisions have a margin under "
            f"{CLOSE_ROUTING:g} (allowed are less than {MAX_CLOSE:.1%}), {self.flipped} more tiles differ "
            "because of one"
        )


def measure(encoder: Encoder, onnx_model: bytes, tolerance: float = TOLERANCE) -> Parity:
    """Run the unfused encoder and its ONNX form (CPU, fp32) on the same tiles.

    Args:
        encoder: in evaluation mode.
        onnx_model: serialised, with the inputs and outputs that graph.py describes.
        tolerance: of a tile's largest token value.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch computes in between
    session = ort.InferenceSession(onnx_model, options, providers=[PROVIDER])
    parity = Parity(tolerance)
    for number, (dn, metadata) in enumerate(batches(encoder.config)):
        reference, margins = _reference(encoder, dn, metadata)
        found = _run(session, dn, metadata)
        errors = _errors(found, reference)
        error = np.max(list(errors.values()), axis=0)  # [B]; NaN wherever one is
        flipped = np.zeros(len(dn), bool)
        for i in np.flatnonzero(~(error <= tolerance)).tolist():
            answer = {name: values[i : i + 1] for name, values in found.items()}
            tile = encoder, dn[i : i + 1], metadata[i : i + 1]
            flipped[i] = _is_flip(*tile, answer, margins[i], tolerance)
        parity.tiles += len(dn)
        parity.failed += int((~(error <= tolerance) & ~flipped).sum())
        parity.flipped += int(flipped.sum())
        parity.decisions += margins.size
        parity.close_decisions += int((margins < CLOSE_ROUTING).sum())
        parity.close_routing += int((margins < CLOSE_ROUTING).any(axis=(1, 2)).sum())
        for name, values in errors.items():
            worst = np.max(values[~flipped], initial=parity.worst.get(name, 0.0))
            parity.worst[name] = float(worst)
        parity.max_relative_error = float(np.max(list(parity.worst.values())))
        if number < len(BATCHES):
            for i in range(len(dn)):
                alone = _run(session, dn[i : i + 1], metadata[i : i + 1])
                difference = max(float(np.abs(alone[name][0] - found[name][i]).max()) for name in alone)
                parity.max_batch_difference = max(parity.max_batch_difference, difference)
    return parity


def _errors(found: dict[str, Array], reference: dict[str, Array]) -> dict[str, Array]:
    """Of each tile and output, as a share of the tile's largest token: [B]."""
    size = _largest(reference["tokens"])
    return {name: _largest(found[name] - reference[name]) / size for name in reference}


def _is_flip(
    encoder: Encoder,
    dn: NDArray[np.uint16],
    metadata: Array,
    answer: dict[str, Array],
    margins: Array,
    tolerance: float,
) -> bool:
    """Whether the network gives `answer` when the experts of one close decision change places.

    Or when it sees the tile alone, in which case its own rounding has changed them already.
    """
    close = [(int(layer), int(token)) for layer, token in np.argwhere(margins < CLOSE_ROUTING)]
    if not 0 < len(close) <= MAX_TRIALS:
        return False
    for swap in (None, *close):
        other, _ = _reference(encoder, dn, metadata, swap)
        if all(error[0] <= tolerance for error in _errors(answer, other).values()):
            return True
    return False


def _largest(x: Array) -> Array:
    largest: Array = np.abs(x).reshape(len(x), -1).max(axis=1)
    return largest


def _run(session: ort.InferenceSession, dn: NDArray[np.uint16], metadata: Array) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"dn": dn, "metadata": metadata}), strict=True))


@torch.inference_mode()
def _reference(
    encoder: Encoder, dn: NDArray[np.uint16], metadata: Array, swap: tuple[int, int] | None = None
) -> tuple[dict[str, Array], Array]:
    """Outputs of the unfused network, and its routing margins [B, layers, N].

    With `swap`, a layer and a token, that token's last chosen and first rejected expert change places.
    """
    k = encoder.config.top_k
    margins: list[torch.Tensor] = []

    def look(_module: torch.nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        top, index = logits.topk(k + 1, dim=-1)  # [B, N, k + 1]
        margins.append(top[..., k - 1] - top[..., k])
        if swap is not None and swap[0] == len(margins) - 1:
            logits = logits.clone()
            row, pair = logits[:, swap[1]], index[:, swap[1], k - 1 :]
            row.scatter_(-1, pair, row.gather(-1, pair).flip(-1))
        return logits

    hooks = [cast(Block, layer).gate.Wg.register_forward_hook(look) for layer in encoder.layers]
    try:
        z = encoder.standardise(torch.from_numpy(dn.astype(np.int32)))
        tokens = encoder(z, torch.from_numpy(metadata)).tokens.double()
    finally:
        for hook in hooks:
            hook.remove()
    stacked: Array = torch.stack(margins, dim=1).numpy()
    return {pooling: pooled(tokens, pooling).float().numpy() for pooling in POOLINGS}, stacked


def batches(config: ModelConfig) -> Iterator[tuple[NDArray[np.uint16], Array]]:
    """`dn` and `metadata` of the same tiles every time: ROUNDS rounds of BATCHES."""
    rng = np.random.default_rng(105)
    number = 0
    for _ in range(ROUNDS):
        for size in BATCHES:
            numbers = range(number, number + size)
            number += size
            dn = np.stack([_tile(config, i, rng) for i in numbers])
            metadata = np.stack([_metadata(i, rng) for i in numbers])
            yield dn, metadata


def _tile(config: ModelConfig, number: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """One tile, of one of eight kinds in turn."""
    shape = (config.in_channels, config.image_size, config.image_size)
    dn: NDArray[Any]
    match number % 8:
        case 0:
            dn = rng.integers(0, 65536, shape)
        case 1:
            dn = rng.choice([1, 65535], shape)
        case 2:
            dn = np.full(shape, rng.choice([1, 7_000, 10_000, 65_535]))
        case 3:
            dn = np.zeros(shape)
        case 4:
            dn = _land(config, rng)
            dn[:, :, : rng.integers(1, config.image_size)] = 0  # the edge of a scene
        case _:
            dn = _land(config, rng)
    return np.rint(dn).astype(np.uint16)


def _land(config: ModelConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth fields that the bands share, around typical surface reflectance, with some noise."""
    axis = np.linspace(0, 1, config.image_size)
    waves = np.zeros((config.image_size, config.image_size))
    for _ in range(4):
        fy, fx, phase = rng.uniform(0, 3), rng.uniform(0, 3), rng.uniform(0, 2 * np.pi)
        waves += np.cos(2 * np.pi * (fy * axis[:, None] + fx * axis) + phase)
    level = rng.uniform(7_500, 18_000, (config.in_channels, 1, 1))
    contrast = rng.uniform(-1_500, 1_500, (config.in_channels, 1, 1))
    noise = rng.normal(0, 150, (config.in_channels, config.image_size, config.image_size))
    return np.asarray(np.clip(level + contrast * waves + noise, 1, 65535))


def _metadata(number: int, rng: np.random.Generator) -> Array:
    """Random angles; every combination of known and missing fields in turn."""
    angle = rng.uniform(-np.pi, np.pi, NUM_METADATA_TOKENS)
    known = number >> np.arange(NUM_METADATA_TOKENS) & 1
    encoding: Array = (np.stack([np.sin(angle), np.cos(angle)], axis=-1) * known[:, None]).astype(np.float32)
    return encoding
