"""Pretraining of the masked autoencoder; a run that is stopped goes on exactly where it was."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from model import checkpoint
from model.checkpoint import Checkpoint
from model.moe_mae import MoEMAE
from training.clock import Clock
from training.data import Augmentation, Batch, Batches, Order, TileSet, source_weights
from training.devices import describe, fabric_for
from training.given_encoder import followed, start_from
from training.initialise import start_positions_as_waves
from training.interrupt import Interrupt
from training.loss import Losses, pretraining_losses, value_weights
from training.recipe import PretrainConfig
from training.run_log import RunLog
from training.schedule import averaged
from training.shards import PackedSet, PackError, open_packed
from training.state import DATA, Progress, RunState, digest
from training.validation import validate

STATE, BEST, LAST = "state.pt", "best.safetensors", "last.safetensors"
INITIAL, NETWORK = 2, 3  # streams of random numbers, beside those of the data


class NonFiniteLossError(RuntimeError):
    """The loss or its gradients became NaN or infinite; the state before that step was saved."""


class Pretraining:
    """One run in one folder."""

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        """Open the data, build the network, and go to where the folder's run stopped, if there is one.

        Raises:
            PackError: the packed set cannot be used.
            StateError: the folder's state is damaged, or of a run with another configuration or other data.
            CheckpointError: the encoder to start from cannot be read, is of another architecture, or was
                trained otherwise than the recipe says.
        """
        self.fabric, scaler = fabric_for(config.run)
        self.fabric.launch()
        packed = open_packed(config.data.path)
        self.given = None if config.encoder is None else checkpoint.load(config.encoder)
        if self.given:
            config = followed(config, self.given)
            packed.check_hours(self.given.preprocessing.hour_convention)
        self.config, self.folder = config, folder
        self.preprocessing = (
            self.given.preprocessing if self.given else config.preprocessing(packed.hour_convention)
        )
        tiles = self._tiles(packed, config.data.split)
        validated = config.data.validation_split
        try:
            self.validation = self._tiles(packed, validated) if validated else None
        except PackError as error:
            raise PackError(f"{error}; data.validation_split=null trains without validation") from error
        self.tiles = len(tiles)
        self.schedule = config.schedule(config.total_steps(len(tiles), self.fabric.world_size))
        data = config.data
        self.batches = Batches(
            tiles,
            Order(len(tiles), config.seed, source_weights(tiles, data.weights)),
            Augmentation(data.flips, data.drop_metadata, data.drop_field),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        torch.manual_seed(_seed(config.seed, INITIAL))
        self.model = MoEMAE(config.architecture, self.preprocessing, config.loss.targets)
        if config.positions == "waves":
            start_positions_as_waves(self.model)
        if self.given:
            start_from(self.model, self.given)
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.optimiser.learning_rate,
            betas=config.optimiser.betas,
            weight_decay=config.optimiser.weight_decay,
        )
        self._wrapped, self._fabric_optimiser = self.fabric.setup(self.model, self.optimiser)
        self.ema = averaged(self.model, config.optimiser.ema) if config.optimiser.ema else None
        self.progress = Progress()
        self.stopped_by: str | None = None  # name of the signal that ended the run early
        learned = {
            **config.learned(),
            DATA: packed.identity(),
            "data_tiles": len(tiles),
            "world": self.fabric.world_size,
        }
        if self.given:
            learned["encoder"] = digest(self.given.model.encoder)
        self.state = RunState(
            self.model, self.optimiser, self.ema, scaler, self.progress, learned, self.schedule
        )
        found = folder / STATE
        self.unchecked = self.state.restore(found) if found.exists() else None

    @property
    def step(self) -> int:
        """Updates done."""
        return self.progress.step

    def run(self) -> None:
        """Train to the last step, or until SIGINT or SIGTERM, and save.

        Raises:
            NonFiniteLossError: the loss or its gradients became NaN or infinite.
        """
        config, total = self.config, self.schedule.total
        self.folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(self.folder, self.step) if self.fabric.is_global_zero else None
        if log:
            record = json.dumps(config.model_dump(mode="json"), indent=2)
            (self.folder / "config.json").write_text(record + "\n")
            self.fabric.print(self._headline(), flush=True)
            if self.unchecked:
                self.fabric.print(f"note: {self.unchecked}", flush=True)
        micro = self.batches.iterate(self.step * config.accumulate, total * config.accumulate)
        try:
            with Interrupt() as interrupt:
                clock = Clock(config.batch_size * config.accumulate * self.fabric.world_size)
                while self.step < total and not self._anywhere(interrupt.name is not None):
                    row = self._update(micro)
                    self.progress.step += 1
                    clock.count()
                    last = self.step == total
                    if last or self.step % config.run.log_every == 0:
                        row["tiles_per_s"] = clock.rate()
                        self._report(log, "train", row, f"  left {clock.left(total - self.step)}")
                    if last or self.step % config.run.validate_every == 0:
                        self._validate(log)
                    if self.step % config.run.save_every == 0:
                        self.save()
                    if last or self.step % config.run.log_every == 0:
                        clock.restart()
            if self.step < total:
                self.stopped_by = interrupt.name or "another process"
            self.save()
        finally:
            micro.close()
            if log:
                log.close()

    def save(self) -> None:
        """Write the state to resume from, and the weights as they are now."""
        if self.fabric.is_global_zero:
            self.state.save(self.folder / STATE)
            self._save_weights(self.folder / LAST)
        self.fabric.barrier()

    @property
    def evaluated(self) -> MoEMAE:
        """The weights that are validated and kept: averaged ones where the recipe averages."""
        if self.ema is None:
            return self.model
        module = self.ema.module
        assert isinstance(module, MoEMAE)  # noqa: S101 - what averaged() was given; for the type checker
        return module

    def _tiles(self, packed: PackedSet, split: str | None) -> TileSet:
        return TileSet(
            packed,
            split,
            min_valid_fraction=self.config.data.min_valid_fraction,
            nodata_fill=self.config.data.nodata_fill,
            band_means=self.preprocessing.mean,
        )

    def _update(self, micro: Generator[Batch]) -> dict[str, float]:
        """One optimiser step over `accumulate` micro-batches; their mean losses, the rate and the norm."""
        config, count = self.config, self.config.accumulate
        self.model.train()  # here, since validation leaves it otherwise
        if self.given:
            self.model.encoder.eval()  # without the gates' noise: as it will be used
        rate = self.schedule.at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(Losses._fields))
        for i in range(count):
            # Seeded by position, not by history: a resumed run draws the same masks, noise and dropout.
            seed = _seed(config.seed, NETWORK, self.step * count + i, self.fabric.global_rank)
            torch.manual_seed(seed)
            with self.fabric.no_backward_sync(self._wrapped, enabled=i + 1 < count):
                losses = self._losses(next(micro))
                terms = torch.stack([t.detach().float() for t in losses]).cpu()
                if self._anywhere(not torch.isfinite(terms).all()):
                    shown = ", ".join(
                        f"{n} {v:g}" for n, v in zip(Losses._fields, terms.tolist(), strict=True)
                    )
                    raise self._non_finite(f"is not finite ({shown})")
                self.fabric.backward(losses.total / count)
            sums += terms / count
        norm = self.fabric.clip_gradients(
            self._wrapped, self._fabric_optimiser, max_norm=config.optimiser.clip, error_if_nonfinite=False
        )
        # Of a finite loss, too, gradients may be none. In fp16 that is usual: the scaler leaves out the step.
        if self.state.scaler is None and norm is not None and not math.isfinite(norm):
            raise self._non_finite(f"has gradients that are not finite (norm {norm:g})")
        self._fabric_optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update_parameters(self.model)
        named = dict(zip(Losses._fields, sums.tolist(), strict=True))
        return {
            **named,
            "learning_rate": rate,
            "gradient_norm": math.nan if norm is None else float(norm),
        }

    def _losses(self, batch: Batch) -> Losses:
        cfg, device = self.model.config, self.fabric.device
        dn, encodings = torch.from_numpy(batch.dn).to(device), torch.from_numpy(batch.encodings).to(device)
        valid = torch.from_numpy(batch.valid).to(device)
        result = self._wrapped(dn, encodings, None, self.config.mask_ratio, valid)
        weights = None
        if self.config.loss.ignore_invalid:
            estimated = torch.from_numpy(batch.b1_estimated).to(device)
            weights = value_weights(valid, estimated, cfg.in_channels, cfg.patch_size)
        return pretraining_losses(result, weights, self.config.loss)

    def _non_finite(self, what: str) -> NonFiniteLossError:
        path = self.folder / f"non-finite-step-{self.step}.pt"
        if self.fabric.is_global_zero:
            self.state.save(path)
        return NonFiniteLossError(
            f"the loss of step {self.step} {what}; the state before it is in {path}. "
            "A lower optimiser.learning_rate or run.precision=32 may help"
        )

    def _validate(self, log: RunLog | None) -> None:
        if self.validation is not None and self.fabric.is_global_zero:
            with self.fabric.autocast():
                row = validate(
                    self.evaluated,
                    self.validation,
                    batch_size=self.config.batch_size,
                    mask_ratio=self.config.mask_ratio,
                    device=self.fabric.device,
                    loss=self.config.loss,
                )
            self._report(log, "validation", row)
            if row["masked"] < self.progress.best:
                self.progress.best = row["masked"]
                self._save_weights(self.folder / BEST)
        self.fabric.barrier()

    def _save_weights(self, path: Path) -> None:
        best = self.progress.best
        info = {
            "name": self.config.name,
            "trained": True,
            "step": self.step,
            "steps": self.schedule.total,
            "tiles": self.tiles,
            DATA: self.state.learned[DATA],
            "best_validation_masked": best if math.isfinite(best) else None,
            "recipe": self.config.model_dump(mode="json", exclude={"data": {"path": True}, "encoder": True}),
        }
        if self.given:
            info["encoder"] = self.given.info
        checkpoint.save(path, Checkpoint(self.evaluated, self.preprocessing, info))

    def _report(self, log: RunLog | None, table: str, row: dict[str, float], more: str = "") -> None:
        if log:
            log.write(table, self.step, row)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in row.items())
            self.fabric.print(
                f"{time.strftime('%H:%M:%S')} step {self.step}/{self.schedule.total} {table}: {shown}{more}",
                flush=True,
            )

    def _anywhere(self, here: bool) -> bool:
        """Whether it is so in any process: all stop at the same step, or the others would wait for ever."""
        if self.fabric.world_size == 1:
            return here
        count = torch.tensor(float(here), device=self.fabric.device)
        torch.distributed.all_reduce(count)
        return bool(count)

    def _headline(self) -> str:
        start = f"resuming at step {self.step}" if self.step else "starting"
        return (
            f"{start} of {self.schedule.total}: {self.tiles:,} training tiles, "
            f"{len(self.validation) if self.validation else 0:,} for validation, "
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {describe(self.fabric)}"
        )


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
