"""A network whose embeddings probes are fitted on, from a checkpoint or from a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model import bundle as bundles
from model import checkpoint
from model.bundle import Bundle
from model.config import ModelConfig, Preprocessing
from model.moe_mae import MoEMAE
from model.outputs import Pooling
from model.parity import batches
from training.embeddings import Advance, embed
from training.precisions import Exact

FloatArray = NDArray[np.float32]
BATCH = 4  # tiles that fit a core's cache, as the service computes them
CHECKPOINT = ".safetensors"
# Of a tile's largest value: a hundred times what rounding does, and far less than a step of training.
SAME = 1e-4


class Embed(Protocol):
    """Filled tiles uint16 (N, 7, S, S), encodings float32 (N, 4, 2) → float32 (N, dim) for every pooling.

    Tokens come one after another. `advance` is told how many tiles more are done.
    """

    def __call__(
        self,
        dn: NDArray[np.uint16],
        encodings: FloatArray,
        poolings: tuple[Pooling, ...],
        advance: Advance | None = None,
    ) -> dict[Pooling, FloatArray]:
        """Embeds."""


@dataclass(frozen=True)
class Frozen:
    """An encoder that stays as it is.

    `info` says how it was trained. `bundle` is the one it came from, None for a checkpoint's; `network` is
    the checkpoint's, with the decoder that bundles leave out.
    """

    config: ModelConfig
    preprocessing: Preprocessing
    embed: Embed
    info: dict[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None
    network: MoEMAE | None = None


def load(source: Path | str | None) -> Frozen:
    """The encoder of a checkpoint, or of a bundle: its folder, hf://owner/name, or None for the packaged one.

    Raises:
        CheckpointError, BundleError: it cannot be read.
    """
    if source is not None and str(source).endswith(CHECKPOINT):
        return of_checkpoint(checkpoint.load(Path(source)))
    return of_bundle(bundles.load(source))


def of_checkpoint(found: checkpoint.Checkpoint) -> Frozen:
    """Computed in torch."""
    embedded = partial(embed, found.model.encoder)
    return Frozen(found.config, found.preprocessing, embedded, found.info, network=found.model)


def of_bundle(bundle: Bundle) -> Frozen:
    """Computed by ONNX Runtime from the file that is served, in fp32."""
    exact = Exact(bundle.encoder_path().read_bytes())

    def embedded(
        dn: NDArray[np.uint16],
        encodings: FloatArray,
        poolings: tuple[Pooling, ...],
        advance: Advance | None = None,
    ) -> dict[Pooling, FloatArray]:
        runs = []
        for at in range(0, len(dn), BATCH):
            part = dn[at : at + BATCH]
            runs.append(exact.run(part, encodings[at : at + BATCH].astype(np.float32), poolings))
            if advance is not None:
                advance(len(part))
        return {
            pooling: np.concatenate(values).reshape(len(dn), -1)
            for pooling, values in zip(poolings, zip(*runs, strict=True), strict=True)
        }

    info = {**bundle.training, "name": bundle.name, "trained": bundle.trained}
    return Frozen(bundle.config, bundle.preprocessing, embedded, info, bundle)


def alike(one: Frozen, other: Frozen) -> bool:
    """Whether two encoders of one architecture have the same weights: they embed a dozen tiles alike.

    Of most tiles: rounding may send a token of one to another expert.
    """
    dn, encodings = (np.concatenate(parts) for parts in zip(*islice(batches(one.config), 3), strict=True))
    ours, theirs = (of.embed(dn, encodings, ("mean",))["mean"] for of in (one, other))
    differences = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)
    return bool(np.median(differences) <= SAME)
