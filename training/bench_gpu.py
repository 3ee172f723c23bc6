"""A device's ceilings, every precision's parity on it, and tiles/s by batch size against the published form.

Time on a GPU is often lent in short pieces, so each section is a record of its own (model/measurement.py),
written when it is done and left alone when the command is called again; and a section that is cut off
continues behind its last round. The sections: `ceilings`, `parity`, a `batch-N` for each batch size,
`service`, a `compiled-N` for some batch sizes, since torch.compile takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata as packages
from importlib import util
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from model import measurement
from model.checkpoint import Checkpoint
from model.flops import flops_per_tile
from model.measurement import Figures, Measure, Of, Record, interleave, of
from training import gpu_parity
from training.gpu_ceilings import ceilings, repeated, synchronise
from training.gpu_contenders import BASELINE, Contenders, Prepare, compiled_contenders, contenders
from training.gpu_parity import first_line
from training.gpu_tiles import Tiles

BATCHES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
COMPILED = (64, 1024)
_PARITY_BATCH = 64
_LATENCY_RUNS = 100

Json = dict[str, Any]


class SectionError(ValueError):
    """A section that there is not; names those that there are."""


@dataclass(frozen=True)
class Plan:
    """What to measure, on what, for how long."""

    checkpoint: Checkpoint
    tiles: Tiles  # real ones, if parity is to say something
    device: torch.device
    out: Path  # folder of the records
    batches: Sequence[int] = BATCHES
    compiled: Sequence[int] = COMPILED  # batch sizes that torch.compile is measured with
    rounds: int = 3
    seconds: float = 0.3  # of each measurement in a round
    bundle: Path | None = None  # that the service is measured with
    only: Sequence[str] = ()  # names of sections; all without
    quick: bool = False


def run(plan: Plan, tell: Callable[[str], None] = print) -> list[Path]:
    """Measures what is not measured yet.

    Returns:
        The files of all records that there are then.

    Raises:
        SectionError: a name in `plan.only` that is none of a section.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # by default a convolution rounds its inputs to 10 bits
    sections: dict[str, Callable[[Path], Json]] = {
        "ceilings": lambda path: _ceilings(plan, path),
        "parity": lambda _: _parity(plan),
        **{f"batch-{size}": partial(_throughput, plan, size, contenders) for size in plan.batches},
        "service": lambda _: _service(plan),
        **{
            f"compiled-{size}": partial(_throughput, plan, size, compiled_contenders)
            for size in plan.compiled
        },
    }
    if unknown := sorted(set(plan.only) - sections.keys()):
        raise SectionError(f"no section {', '.join(unknown)}; there are {', '.join(sections)}")
    plan.out.mkdir(parents=True, exist_ok=True)
    for name in plan.only or sections:
        path = plan.out / f"{name}.json"
        if path.exists():
            tell(f"{name}: measured before, in {path}")
            continue
        tell(f"{name} ...")
        measurement.write(sections[name](path), path)
    return [path for name in sections if (path := plan.out / f"{name}.json").exists()]


def hardware(device: torch.device) -> Json:
    """The device in words and numbers, and the software that drives it."""
    try:
        triton = packages.version("triton")
    except packages.PackageNotFoundError:
        triton = ""
    found: Json = {"type": device.type, "cuda": torch.version.cuda or "", "triton": triton}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
        }
    else:
        found |= {"name": "CPU", "threads": torch.get_num_threads()}
    return found


def _settings(plan: Plan, **more: Any) -> Json:
    return {
        "device": hardware(plan.device),
        "model": plan.checkpoint.config.to_dict(),
        "seconds": plan.seconds,
        **more,
    }


def _ceilings(plan: Plan, path: Path) -> Json:
    found = ceilings(plan.checkpoint.config, plan.device, seconds=plan.seconds, quick=plan.quick)
    settings = _settings(plan)
    rounds = interleave(found, plan.rounds, settings=settings, partial=measurement.partial_of(path))
    return Record("gpu ceilings", settings, rounds).to_json()


def _parity(plan: Plan) -> Json:
    made = contenders(plan.checkpoint, plan.device)
    size = min(_PARITY_BATCH, max(plan.batches))
    reference = gpu_parity.exact(made.ready[BASELINE], plan.tiles, plan.device, size)
    found, failed = gpu_parity.all_against(reference, made.ready, plan.tiles, plan.device, size)
    settings = _settings(plan, tiles=len(plan.tiles[0]), batch_size=size, reference=BASELINE)
    rows = {of(contender=name): figures for name, figures in found.items()}
    return Record("gpu parity", settings, [rows], made.absent | failed).to_json()


def _throughput(
    plan: Plan, size: int, make: Callable[[Checkpoint, torch.device], Contenders], path: Path
) -> Json:
    made = make(plan.checkpoint, plan.device)
    measurements: dict[Of, Measure] = {}
    failed: dict[str, str] = {}
    with torch.inference_mode():
        for name, prepare in made.ready.items():
            try:
                measurements[of(contender=name)] = _contender(plan, prepare, size)
            except Exception as error:  # as in gpu_parity.py; the others are measured all the same
                failed[name] = first_line(error)
        settings = _settings(plan, batch_size=size)
        kept = measurement.partial_of(path)
        done = interleave(measurements, plan.rounds, settings=settings, partial=kept)
    flops, base = flops_per_tile(plan.checkpoint.config), of(contender=BASELINE)
    for each in done:
        for figures in each.values():
            figures["tflop_per_s"] = figures["tiles_per_s"] * flops / 1e12
            if base in each:
                figures["times_loop"] = figures["tiles_per_s"] / each[base]["tiles_per_s"]
    return Record("gpu throughput", settings, done, made.absent | failed).to_json()


def _contender(plan: Plan, prepare: Prepare, size: int) -> Measure:
    """Tiles/s from and to the device's memory, tiles/s with transfers, and how long one batch takes alone."""
    rows = np.arange(size) % len(plan.tiles[0])
    cuda = plan.device.type == "cuda"
    host = [torch.from_numpy(part[rows]) for part in plan.tiles]
    host = [part.pin_memory() for part in host] if cuda else host
    places = [part.to(plan.device, copy=True) for part in host]
    run = prepare(*places)
    mean, _ = run()
    answer = torch.empty(mean.shape, pin_memory=cuda)

    def moved() -> None:
        for place, part in zip(places, host, strict=True):
            place.copy_(part, non_blocking=True)
        answer.copy_(run()[0], non_blocking=True)

    def measure() -> Figures:
        count, elapsed = repeated(run, plan.seconds)
        moves, moving = repeated(moved, plan.seconds)
        times = []
        for _ in range(3 if plan.quick else _LATENCY_RUNS):
            started = perf_counter()
            run()
            synchronise()
            times.append(perf_counter() - started)
            if sum(times) > plan.seconds:
                break
        return {
            "tiles_per_s": count * size / elapsed,
            "tiles_per_s_with_transfers": moves * size / moving,
            "p50_ms": median(times) * 1000,
        }

    return measure


def _service(plan: Plan) -> Json:
    """What `landmoe bench service` says here, run as a user would: training does not know the service."""
    settings = _settings(plan)
    if missing := [name for name in ("fastapi", "uvicorn", "rasterio") if util.find_spec(name) is None]:
        return Record(
            "gpu service", settings, [], {"service": f"{', '.join(missing)} not installed"}
        ).to_json()
    target = plan.out / "service.landmoe.json"
    command = [sys.executable, "-c", "from service.cli import main; main()", "bench", "service"]
    command += ["--json", str(target)]
    command += ["--quick"] if plan.quick else []
    given = {} if plan.bundle is None else {"LANDMOE_BUNDLE": str(plan.bundle)}
    done = subprocess.run(  # noqa: S603  # ourselves
        command, env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not target.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        return Record("gpu service", settings, [], {"service": reason[:300]}).to_json()
    found: Json = json.loads(target.read_text())
    target.unlink()
    return found
