"""Which experts the tokens of served tiles go to: what training balanced should stay so in production.

Counted in every batch: with this output the encoder takes no measurably longer (see docs/hardening.md).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from model.config import ModelConfig
from service.telemetry import metrics

ROUTED_TOKENS = Counter(
    "landmoe_routed_tokens",
    "Tokens of computed tiles by the experts that they went to, of which every token has several",
    ["layer", "expert"],
    registry=metrics.REGISTRY,
)


def observe(routing: NDArray[np.float32], config: ModelConfig) -> None:
    """Counts a batch.

    Args:
        routing: float32 (B, depth, experts), shares of a layer's choices for each tile.
        config: of the network; says how many choices that are, and which experts a layer has.
    """
    choices = config.num_tokens * config.top_k
    totals = np.rint(routing.sum(axis=0, dtype=np.float64) * choices)
    if not np.isfinite(totals).all():  # the tiles' own results tell what is wrong
        return
    for counters, numbers in zip(_counters(config.num_experts), totals, strict=True):
        for counter, number in zip(counters, numbers, strict=False):  # a layer may have fewer experts
            counter.inc(float(number))


@lru_cache(maxsize=4)
def _counters(experts: tuple[int, ...]) -> list[list[Counter]]:
    return [
        [ROUTED_TOKENS.labels(str(layer), str(expert)) for expert in range(number)]
        for layer, number in enumerate(experts)
    ]
