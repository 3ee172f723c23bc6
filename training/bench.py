"""How long a training step takes, dense and with looped experts, and whether the loader keeps up."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from model.config import ModelConfig
from model.expert_loop import with_looped_experts
from model.measurement import Figures, Measure, Of, Record, interleave, of
from model.moe_mae import MoEMAE
from training.data import Augmentation, Batches, Order, TileSet
from training.loss import LossConfig, pretraining_losses
from training.shards import open_packed

_DENSE, _LOOPED = of(experts="dense"), of(experts="loop")
_WARM_UP = 2  # steps that are not counted


def steps(
    config: ModelConfig, *, batch_size: int, rounds: int, device: torch.device, partial: Path | None = None
) -> dict[str, Any]:
    """Time whole steps (forward, backward, update) of the dense experts and of the loop over them, in turns.

    Returns:
        A record (model/measurement.py): for each `experts` `step_ms`, `tiles_per_s`, `times_loop`.
    """
    torch.manual_seed(0)
    dense = MoEMAE(config).to(device).train()
    looped = with_looped_experts(copy.deepcopy(dense))
    size = (batch_size, config.in_channels, config.image_size, config.image_size)
    dn = torch.randint(7000, 20000, size, device=device)
    encodings = torch.randn(batch_size, 4, 2, device=device)
    measurements: dict[Of, Measure] = {
        what: _step_of(_step(model, dn, encodings), batch_size, device)
        for what, model in ((_DENSE, dense), (_LOOPED, looped))
    }
    for measure in measurements.values():
        for _ in range(_WARM_UP):
            measure()
    settings = {
        "model": config.to_dict(),
        "batch_size": batch_size,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    done = interleave(measurements, rounds, settings=settings, partial=partial)
    for each in done:
        for figures in each.values():
            figures["times_loop"] = figures["tiles_per_s"] / each[_LOOPED]["tiles_per_s"]
    return Record("step", settings, done).to_json()


def loader(
    path: Path, *, batch_size: int, batches: int, rounds: int, partial: Path | None = None
) -> dict[str, Any]:
    """Time the loader, with all augmentation and without a network to wait for.

    Returns:
        A record (model/measurement.py): `tiles_per_s` of the `loader`.
    """
    tiles = TileSet(open_packed(path), None, nodata_fill="band_mean")
    augmentation = Augmentation(flips=True, drop_metadata=0.3, drop_field=0.1)
    made = Batches(tiles, Order(len(tiles), 0), augmentation, batch_size=batch_size, seed=0)

    def measure() -> Figures:
        stream = made.iterate(0, batches + 1)
        next(stream)
        started = time.perf_counter()
        for _ in stream:
            pass
        return {"tiles_per_s": batches * batch_size / (time.perf_counter() - started)}

    settings = {"tiles": len(tiles), "batch_size": batch_size, "batches": batches}
    measured = interleave({of(loader="augmented"): measure}, rounds, settings=settings, partial=partial)
    return Record("loader", settings, measured).to_json()


def show(record: Mapping[str, Any]) -> str:
    """A record in lines, medians first."""
    lines = []
    for row in record["rows"]:
        figures = ", ".join(
            f"{name.replace('_', ' ')} {median:,.4g} ({low:,.4g} to {high:,.4g})"
            for name, (median, low, high) in row["figures"].items()
        )
        lines.append(f"{' '.join(map(str, row['of'].values()))}: {figures}")
    return "\n".join(lines)


def _step_of(run: Callable[[], None], batch_size: int, device: torch.device) -> Measure:
    def measure() -> Figures:
        seconds = _timed(run, device)
        return {"step_ms": seconds * 1000, "tiles_per_s": batch_size / seconds}

    return measure


def _step(model: MoEMAE, dn: torch.Tensor, encodings: torch.Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        torch.autograd.backward(pretraining_losses(model(dn, encodings), None, LossConfig()).total)
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
