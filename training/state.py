"""What a run needs to go on exactly where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.schedule import Schedule

FORMAT_VERSION = 1
ADDED = {"loss.targets": "absolute"}  # options that older states do not name, and how their runs were
DATA = "packed"  # what `PackedSet.identity` says; older states have the number of tiles only


class StateError(Exception):
    """A saved state that cannot be resumed from, and why."""


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0  # updates done
    best: float = math.inf  # lowest validation loss so far


@dataclass(frozen=True)
class RunState:
    """The parts of a run that change while it learns, and what must not change in between."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    ema: nn.Module | None
    scaler: torch.amp.GradScaler | None  # fp16 only
    progress: Progress
    learned: dict[str, Any]  # JSON; everything that decides what is learned, but for the schedule
    schedule: Schedule

    def save(self, path: Path) -> None:
        """Write tensors, numbers and text, at once or not at all.

        Raises:
            OSError: as on a full disk; a state that was there before stays.
        """
        content = {
            "format": FORMAT_VERSION,
            "step": self.progress.step,
            "best": self.progress.best,
            "steps": self.schedule.total,
            "learned": json.dumps(self.learned, sort_keys=True),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # of a full disk torch says only that the file is too short
            partial.unlink(missing_ok=True)
            raise OSError(f"{path}: cannot be written; is the disk full? ({error})") from error
        partial.replace(path)

    def restore(self, path: Path) -> str | None:
        """Take over a saved state, after checking that the rest of the run would not differ.

        Returns:
            What could not be checked, since an older release saved the state; None if everything was.

        Raises:
            StateError: no such file, damaged, of another format, or of a run with another configuration or
                other data.
        """
        saved = read(path)
        learned = json.loads(saved["learned"])
        unchecked = None
        if DATA not in learned:
            learned[DATA] = self.learned[DATA]
            unchecked = (
                f"{path} is of an older release and does not say on which tiles; that they are as many "
                "is all that could be checked"
            )
        self._check_same(learned, path)
        self._check_schedule(saved["step"], saved["steps"], path)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.progress.step, self.progress.best = saved["step"], saved["best"]
        return unchecked

    def _check_same(self, saved: dict[str, Any], path: Path) -> None:
        now = _flat(json.loads(json.dumps(self.learned)))
        before = ADDED | _flat(saved)
        changed = [
            f"{key}: {before.get(key)!r} in the state, {now.get(key)!r} now"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise StateError(
                f"{path} was saved with another configuration or other data ({'; '.join(changed)}); "
                "start a new run folder, or go on with the old ones"
            )

    def _check_schedule(self, done: int, total: int, path: Path) -> None:
        before = self.schedule.with_total(total)
        for step in range(done):
            was, would_be = before.at(step), self.schedule.at(step)
            if was != would_be:
                raise StateError(
                    f"{path} is at step {done} of {total}; with {self.schedule.total} steps the rate of "
                    f"step {step} would have been {would_be:g}, not {was:g}. Only a constant schedule can be "
                    "lengthened, with a warm-up given in steps and before its decay begins"
                )


def read(path: Path) -> dict[str, Any]:
    """Read a state without executing anything in it.

    Raises:
        StateError: no such file, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StateError(f"{path}: no such file") from None
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise StateError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT_VERSION:
        raise StateError(f"{path}: not a state of this release (format {FORMAT_VERSION})")
    return state


def digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights by name, in hexadecimal."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones, so that a message names the one that changed."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
