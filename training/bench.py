"""How long a training step takes, dense and with looped experts, and whether the loader keeps up."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model.config import ModelConfig
from model.moe_mae import MoEMAE, pretraining_loss
from training.data import Augmentation, Batches, Order, TileSet
from training.expert_loop import with_looped_experts
from training.shards import open_packed

WARM_UP = 2  # steps that are not counted


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of a whole step: forward, backward, update."""

    dense: float
    looped: float

    @property
    def speed_up(self) -> float:
        """How many times faster the dense form is."""
        return self.looped / self.dense


def step_times(config: ModelConfig, *, batch_size: int, steps: int, device: torch.device) -> StepTimes:
    """Time steps of both forms in turns, so that other load on the machine falls on both alike."""
    torch.manual_seed(0)
    dense = MoEMAE(config).to(device).train()
    looped = with_looped_experts(copy.deepcopy(dense))
    size = (batch_size, config.in_channels, config.image_size, config.image_size)
    dn = torch.randint(7000, 20000, size, device=device)
    encodings = torch.randn(batch_size, 4, 2, device=device)
    runs = [_step(model, dn, encodings) for model in (dense, looped)]
    times: list[list[float]] = [[], []]
    for i in range(steps + WARM_UP):
        for run, measured in zip(runs, times, strict=True):
            seconds = _timed(run, device)
            if i >= WARM_UP:
                measured.append(seconds)
    return StepTimes(*(statistics.median(t) for t in times))


def loader_rate(path: Path, *, batch_size: int, batches: int) -> float:
    """Tiles per second that the loader makes with all augmentation, without a network to wait for."""
    tiles = TileSet(open_packed(path), None, nodata_fill="band_mean")
    augmentation = Augmentation(flips=True, drop_metadata=0.3, drop_field=0.1)
    made = Batches(tiles, Order(len(tiles), 0), augmentation, batch_size=batch_size, seed=0)
    stream = made.iterate(0, batches + 1)
    next(stream)
    started = time.perf_counter()
    for _ in stream:
        pass
    return batches * batch_size / (time.perf_counter() - started)


def _step(model: MoEMAE, dn: torch.Tensor, encodings: torch.Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        torch.autograd.backward(pretraining_loss(model(dn, encodings)))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run


def _timed(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
