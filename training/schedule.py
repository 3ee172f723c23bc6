"""Learning rate per step, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

EMA_WARM_UP = 10  # updates; early averages follow the weights closely instead of the random start


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every update: linear warm-up, then `cosine` to 0, or `constant` with a linear end.

    The constant form (warm-up, stable, decay) lets a run be lengthened while it is stable, so how long it
    will be need not be known when it starts. `warm_up` is a share of the total below 1, else a number of
    updates; `decay` is a share.
    """

    kind: Literal["cosine", "constant"]
    peak: float
    total: int  # updates
    warm_up: float
    decay: float

    def with_total(self, total: int) -> Schedule:
        """The same for a run of another length."""
        return replace(self, total=total)

    def at(self, step: int) -> float:
        """The rate for update number `step`, counted from 0."""
        warm_up = round(self.warm_up * self.total) if self.warm_up < 1 else round(self.warm_up)
        if step < warm_up:
            return self.peak * (step + 1) / warm_up
        if self.kind == "constant":
            return self.peak * min(1.0, (self.total - step) / max(1, round(self.decay * self.total)))
        done = (step - warm_up) / max(1, self.total - warm_up)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, d = min(decay, (1 + n) / (10 + n)) after n updates."""

    def average(means: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        weight = 1 - min(decay, (1 + n) / (EMA_WARM_UP + n))
        torch._foreach_lerp_(list(means), list(current), weight)

    return AveragedModel(model, multi_avg_fn=average)
