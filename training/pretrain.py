"""Pretraining of the masked autoencoder: resumable to the bit, stopped by nothing but its own end."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from model import checkpoint
from model.checkpoint import Checkpoint
from model.config import Preprocessing
from model.moe_mae import MoEMAE
from training import state
from training.data import Augmentation, Batch, Batches, Order, TileSet, source_weights
from training.devices import fabric_for
from training.loss import Losses, pretraining_losses, value_weights
from training.recipe import PretrainConfig
from training.run_log import RunLog
from training.schedule import averaged
from training.shards import open_packed
from training.validation import validate

STATE, BEST, LAST = "state.pt", "best.safetensors", "last.safetensors"
INITIAL, NETWORK = 2, 3  # streams of random numbers, beside those of the data


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the state before that step was saved."""


class Pretraining:
    """One run in one folder."""

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        """Open the data, build network and optimiser, and go to where the folder's run stopped, if any.

        Raises:
            PackError: the packed set cannot be used.
            StateError: the folder's state is damaged or of a run with another configuration.
        """
        self.config, self.folder = config, folder
        self.fabric, self._scaler = fabric_for(config.run)
        self.fabric.launch()
        packed = open_packed(config.data.path)
        self.preprocessing = Preprocessing(
            nodata_fill=config.data.nodata_fill,
            hour_convention=packed.manifest["config"]["hour_convention"],
            missing_metadata_trained=config.data.drop_metadata > 0,
        )
        tiles = self._tiles(packed, config.data.split)
        self.validation = (
            self._tiles(packed, config.data.validation_split) if config.data.validation_split else None
        )
        self.tiles = len(tiles)
        self.total_steps = config.total_steps(len(tiles), self.fabric.world_size)
        self._schedule = config.schedule(self.total_steps)
        data = config.data
        self._batches = Batches(
            tiles,
            Order(len(tiles), config.seed, source_weights(tiles, data.weights)),
            Augmentation(data.flips, data.drop_metadata, data.drop_field),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        torch.manual_seed(_seed(config.seed, INITIAL))
        self.model = MoEMAE(config.architecture, self.preprocessing)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optimiser.learning_rate,
            betas=config.optimiser.betas,
            weight_decay=config.optimiser.weight_decay,
        )
        self._wrapped, self._fabric_optimiser = self.fabric.setup(self.model, self.optimiser)
        self.ema = averaged(self.model, config.optimiser.ema) if config.optimiser.ema else None
        self.step = 0  # updates done
        self.best = math.inf  # validation loss
        self.stopped_by: str | None = None  # name of the signal that ended the run early
        self._learned = {**config.learned(), "data_tiles": len(tiles), "world": self.fabric.world_size}
        if (folder / STATE).exists():
            self._restore(folder / STATE)

    def run(self) -> None:
        """Train to the last step, or until SIGINT or SIGTERM, and save.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """
        config, run = self.config, self.config.run
        self.folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(self.folder, self.step) if self.fabric.is_global_zero else None
        if log:
            (self.folder / "config.json").write_text(
                json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
            )
            self.fabric.print(self._headline())
        micro = self._batches.iterate(self.step * config.accumulate, self.total_steps * config.accumulate)
        self._wrapped.train()
        started, views = time.monotonic(), 0
        try:
            with self._signals():
                while self.step < self.total_steps and self.stopped_by is None:
                    rate = self._set_learning_rate()
                    losses, norm = self._update(micro)
                    self.step += 1
                    views += config.batch_size * config.accumulate * self.fabric.world_size
                    if self.step % run.log_every == 0 or self.step == self.total_steps:
                        seconds = time.monotonic() - started
                        row = {
                            **losses,
                            "learning_rate": rate,
                            "gradient_norm": norm,
                            "tiles_per_s": views / seconds,
                        }
                        self._report(log, "train", row)
                        started, views = time.monotonic(), 0
                    if self.step % run.validate_every == 0 or self.step == self.total_steps:
                        self._validate(log)
                        started, views = time.monotonic(), 0
                    if self.step % run.save_every == 0:
                        self.save()
            self.save()
        finally:
            micro.close()
            if log:
                log.close()

    def save(self) -> None:
        """Write the state to resume from, and the weights as they are now."""
        self._save_state(self.folder / STATE)
        self._save_weights(self.folder / LAST)

    @property
    def evaluated(self) -> MoEMAE:
        """The weights that are validated and kept: averaged where the recipe averages."""
        module: MoEMAE = self.ema.module if self.ema else self.model
        return module

    def _tiles(self, packed: Any, split: str | None) -> TileSet:
        data = self.config.data
        return TileSet(
            packed,
            split,
            min_valid_fraction=data.min_valid_fraction,
            nodata_fill=data.nodata_fill,
            band_means=self.preprocessing.mean,
        )

    def _update(self, micro: Iterator[Batch]) -> tuple[dict[str, float], float]:
        """One optimiser step over `accumulate` micro-batches; mean losses and gradient norm."""
        config, count = self.config, self.config.accumulate
        sums = torch.zeros(4)
        for i in range(count):
            # Seeded by position, not by history: a resumed run draws the same masks, noise and dropout.
            torch.manual_seed(_seed(config.seed, NETWORK, self.step * count + i, self.fabric.global_rank))
            with self.fabric.no_backward_sync(self._wrapped, enabled=i + 1 < count):
                losses = self._losses(next(micro))
                terms = torch.stack([t.detach().float() for t in losses]).cpu()
                if not torch.isfinite(terms).all():
                    self._stop_non_finite(terms)
                self.fabric.backward(losses.total / count)
            sums += terms / count
        norm = self.fabric.clip_gradients(
            self._wrapped, self._fabric_optimiser, max_norm=config.optimiser.clip, error_if_nonfinite=False
        )
        self._fabric_optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update_parameters(self.model)
        return dict(zip(Losses._fields, sums.tolist(), strict=True)), float(
            norm
        ) if norm is not None else math.nan

    def _losses(self, batch: Batch) -> Losses:
        config, device = self.config, self.fabric.device
        dn, encodings = torch.from_numpy(batch.dn).to(device), torch.from_numpy(batch.encodings).to(device)
        result = self._wrapped(dn, encodings, None, config.mask_ratio)
        weights = None
        if config.loss.ignore_invalid:
            cfg = self.model.config
            weights = value_weights(
                torch.from_numpy(batch.valid).to(device),
                torch.from_numpy(batch.b1_estimated).to(device),
                cfg.in_channels,
                cfg.patch_size,
            )
        return pretraining_losses(result, weights, config.loss)

    def _set_learning_rate(self) -> float:
        rate = self._schedule.at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _validate(self, log: RunLog | None) -> None:
        if self.validation is None:
            return
        if self.fabric.is_global_zero:
            with self.fabric.autocast():
                row = validate(
                    self.evaluated,
                    self.validation,
                    batch_size=self.config.batch_size,
                    mask_ratio=self.config.mask_ratio,
                    device=self.fabric.device,
                )
            self._report(log, "validation", row)
            if row["masked"] < self.best:
                self.best = row["masked"]
                self._save_weights(self.folder / BEST)
        self.fabric.barrier()

    def _report(self, log: RunLog | None, table: str, row: dict[str, float]) -> None:
        if log:
            log.write(table, self.step, row)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in row.items())
            self.fabric.print(
                f"{time.strftime('%H:%M:%S')} step {self.step}/{self.total_steps} {table}: {shown}",
                flush=True,
            )

    def _save_state(self, path: Path) -> None:
        if self.fabric.is_global_zero:
            state.save(
                path,
                {
                    "step": self.step,
                    "steps": self.total_steps,
                    "best": self.best,
                    "learned": json.dumps(self._learned, sort_keys=True),
                    "model": self.model.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "ema": self.ema.state_dict() if self.ema else None,
                    "scaler": self._scaler.state_dict() if self._scaler else None,
                },
            )
        self.fabric.barrier()

    def _save_weights(self, path: Path) -> None:
        if self.fabric.is_global_zero:
            info = {
                "name": self.config.name,
                "trained": True,
                "step": self.step,
                "steps": self.total_steps,
                "tiles": self.tiles,
                "validation_masked": self.best if math.isfinite(self.best) else None,
                "recipe": self.config.model_dump(mode="json", exclude={"data": {"path": True}}),
            }
            checkpoint.save(path, Checkpoint(self.evaluated, self.preprocessing, info))

    def _restore(self, path: Path) -> None:
        saved = state.load(path)
        state.check_same(json.loads(saved["learned"]), json.loads(json.dumps(self._learned)), path)
        before = self.config.schedule(saved["steps"])
        changed = next((s for s in range(saved["step"]) if before.at(s) != self._schedule.at(s)), None)
        if changed is not None:
            raise state.StateError(
                f"{path} is at step {saved['step']} of {saved['steps']}; with {self.total_steps} steps the learning rate "
                f"of step {changed} would have been {self._schedule.at(changed):g}, not {before.at(changed):g}. Only a "
                "constant schedule can be lengthened, before its decay begins and with a warm-up in steps"
            )
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        if self._scaler:
            self._scaler.load_state_dict(saved["scaler"])
        self.step, self.best = saved["step"], saved["best"]

    def _stop_non_finite(self, terms: torch.Tensor) -> None:
        path = self.folder / f"non-finite-step-{self.step}.pt"
        self._save_state(path)
        shown = ", ".join(f"{n} {v:g}" for n, v in zip(Losses._fields, terms.tolist(), strict=True))
        raise NonFiniteLossError(
            f"the loss of step {self.step} is not finite ({shown}); the state before it is in {path}. "
            "A lower optimiser.learning_rate or run.precision=32 may help"
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the step at hand."""

        def stop(number: int, _frame: FrameType | None) -> None:
            self.stopped_by = signal.Signals(number).name

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _headline(self) -> str:
        start = f"resuming at step {self.step}" if self.step else "starting"
        return (
            f"{start} of {self.total_steps}: {self.tiles} training tiles, "
            f"{len(self.validation) if self.validation else 0} for validation, "
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {describe(self.fabric)}"
        )


def describe(fabric: Fabric) -> str:
    """Device and precision in words."""
    name = (
        torch.cuda.get_device_name(fabric.device)
        if fabric.device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    return f"{fabric.world_size} x {name}, {fabric._precision.precision}"


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
