"""One batch through the engine, in a worker's thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.outputs import ROUTING
from service.batching import routing
from service.batching.tile_queue import Waiting
from service.engine import Engine, EngineError


def infer(engine: Engine, batch: Sequence[Waiting], alone: bool) -> list[NDArray[np.float32] | EngineError]:
    """Stacks, runs, and gives every tile a float32 array of its own, or what is wrong with its result.

    Args:
        engine: that runs.
        batch: one tile or more.
        alone: nothing else runs.

    Raises:
        EngineError: the batch as a whole has no result.
    """
    outputs = tuple(sorted({tile.output for tile in batch}))
    if len(batch) == 1:
        dn, metadata = batch[0].dn[None], batch[0].encoding[None]
    else:
        dn = np.stack([tile.dn for tile in batch])
        metadata = np.stack([tile.encoding for tile in batch])
    if engine.gives_routing:
        outputs += (ROUTING,)
    results = engine.run(dn, metadata, outputs, alone=alone)
    if engine.gives_routing:
        routing.observe(results[ROUTING], engine.bundle.config)
    return [_own(results[tile.output][i], tile.output) for i, tile in enumerate(batch)]


def _own(values: NDArray[np.float32], output: str) -> NDArray[np.float32] | EngineError:
    if not np.isfinite(values).all():
        return EngineError(f"the encoder's output {output} is not finite for this tile")
    return values.copy()  # what is kept must not keep its whole batch in memory
