"""A run's losses as CSV and TensorBoard, continued without a seam when it is resumed."""

from __future__ import annotations

import csv
import fcntl
import os
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from training.state import StateError


class RunLog:
    """Two tables, `train.csv` and `validation.csv`, and the same numbers under `tensorboard/`."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open for writing after `step`; rows of later steps, which will be done again, are removed.

        Raises:
            StateError: another process is at a run in this folder: both would write all of its files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._held = _held(folder)
        self._folder = folder
        for table in ("train", "validation"):
            _truncate(folder / f"{table}.csv", step)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, table: str, step: int, values: dict[str, float]) -> None:
        """Add one row, which is on disk when this returns."""
        path = self._folder / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", *values])
            writer.writerow([step, *(f"{v:.8g}" for v in values.values())])
        for name, value in values.items():
            self._writer.add_scalar(f"{table}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        try:
            self._writer.close()
        finally:
            os.close(self._held)


def _held(folder: Path) -> int:
    """The folder, locked until it is closed, or until this process ends in whatever way."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise StateError(f"{folder}: another process is at this run") from None
    except OSError:  # a file system without locks
        pass
    return opened


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    # Where the disk was full or the machine stopped, the last row is cut off, or there is none.
    rows = [row for row in path.read_text().splitlines(keepends=True) if row.endswith("\n")]
    if not rows:
        path.unlink()
        return
    kept = [row for row in rows[1:] if int(row.split(",", 1)[0]) <= step]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join([rows[0], *kept]))
    partial.replace(path)
