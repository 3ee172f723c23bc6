"""What a tile is described by in an evaluation: the encoder's embeddings, controls, and baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.outputs import POOLINGS
from training import embeddings
from training.embeddings import METADATA, Metadata
from training.frozen import Frozen
from training.heldout import Tiles

FloatArray = NDArray[np.float64]

BAND_STATISTICS = "band statistics"
PLACE_AND_TIME = "place and time"
ENCODER, UNTRAINED = "encoder", "untrained encoder"


@dataclass(frozen=True)
class Features:
    """One way to describe a tile."""

    source: str  # encoder, untrained encoder, band statistics, place and time
    pooling: str  # '' for baselines without a network
    metadata: str
    values: FloatArray  # (N, D)

    @property
    def name(self) -> dict[str, str]:
        """What it is, as the columns of the table."""
        return {"features": self.source, "pooling": self.pooling, "metadata": self.metadata}

    @property
    def published(self) -> bool:
        """Whether the published protocol is run on it too: all but the controls."""
        controls = {(ENCODER, "shuffled"), (UNTRAINED, "off"), (UNTRAINED, "shuffled")}
        return (self.source, self.metadata) not in controls


def features(
    tiles: Tiles,
    found: Frozen,
    untrained: Frozen,
    seed: int,
    advance: Callable[[int, int], None] | None = None,
    *,
    shuffled: bool = True,
) -> list[Features]:
    """Every description of the tiles that is compared: the encoder's poolings, controls and baselines.

    `advance` is told how many tiles are done and how many there are to do.
    """
    dn = tiles.dn()
    passes: list[tuple[str, Frozen, Metadata]] = [
        (ENCODER, found, m) for m in METADATA if shuffled or m != "shuffled"
    ]
    passes += [(UNTRAINED, untrained, "on"), (UNTRAINED, untrained, "off")]
    out: list[Features] = []
    for source, network, m in passes:
        encodings = embeddings.with_metadata(tiles, m, seed)
        step = None if advance is None else (lambda n: advance(n, len(passes) * len(dn)))
        embedded = network.embed(dn, encodings, POOLINGS, step)
        out += [Features(source, p, m, embedded[p].astype(np.float64)) for p in POOLINGS]
    statistics = embeddings.band_statistics(dn, found.preprocessing.mean, found.preprocessing.std)
    out.append(Features(BAND_STATISTICS, "", "off", statistics.astype(np.float64)))
    place_and_time = tiles["encodings"].reshape(len(tiles), -1).astype(np.float64)
    out.append(Features(PLACE_AND_TIME, "", "on", place_and_time))
    return out
