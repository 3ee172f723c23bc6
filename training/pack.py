"""Pack tiles of any origin into memory-mapped shards, and divide their places into splits."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.config import PREPROCESSING_VERSION, HourConvention
from model.windows import TILE_SIZE
from training import geotiffs, places, shards, sources, splits_file
from training.jobs import Job, plan, read_list
from training.places import SplitConfig
from training.shards import PackedSet, PackError, Shard
from training.sources import Sample, Skipped, SourceConfig, Warned
from training.splits_file import LastSplits

MARKER = ".landmoe-packed"  # a folder with it is ours: old shards in it may be removed


class PackConfig(BaseModel):
    """What to pack and how to split it (YAML)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    splits: SplitConfig = SplitConfig()
    hour_convention: HourConvention = "full"


def pack(config: PackConfig, root: Path, out: Path, *, workers: int, quiet: bool = False) -> PackedSet:
    """Pack all sources; shards that are already there and still match their files are kept.

    Args:
        config: sources and splits.
        root: folder that the sources' paths are relative to.
        out: where the packed set goes.
        workers: processes.
        quiet: no progress bar.

    Raises:
        PackError: a source is missing or names clash, or no tile was found at all.
    """
    names = [s.name for s in config.sources]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise PackError(f"source names are used twice: {', '.join(twice)}")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise PackError(f"{out} holds other files; expected a new or empty folder, or a packed set")
    jobs, missing = plan(config.sources, root, config.hour_convention)
    last = splits_file.read_last(out, config.splits)
    folder = out / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    wanted = {job.name for job in jobs}
    for existing in folder.iterdir():
        if existing.name not in wanted:  # of an older configuration, or cut off half-way
            shutil.rmtree(existing)
    if (manifest := out / splits_file.MANIFEST).exists():
        manifest.replace(out / splits_file.BEFORE)
    _run(
        [j for j in jobs if not (folder / j.name / "shard.json").exists()],
        len(jobs),
        folder,
        root,
        config,
        workers,
        quiet,
    )
    return _finish(config, jobs, missing, last, out)


def _run(
    jobs: Sequence[Job], total: int, folder: Path, root: Path, config: PackConfig, workers: int, quiet: bool
) -> None:
    columns = (
        TextColumn("packing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=quiet) as progress:
        bar = progress.add_task("packing", total=total, completed=total - len(jobs))
        if workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                _write(job, folder, root, config.hour_convention)
                progress.advance(bar)
            return
        # Spawned, not forked: GDAL and the progress bar have threads.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(_write, job, folder, root, config.hour_convention) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.advance(bar)
            except BrokenProcessPool as error:
                raise PackError(
                    "a worker process died (out of memory, or a file that crashes the TIFF reader); what is "
                    "packed is kept, and --workers 1 shows where it happens"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write(job: Job, folder: Path, root: Path, hour_convention: HourConvention) -> None:
    found: list[Sample] = []
    skipped: list[Skipped] = []
    for item in _read(job, root):
        if isinstance(item, Skipped):
            skipped.append(item)
        else:
            found.append(item)
    shards.write_shard(folder / job.name, found, skipped, hour_convention)


def _read(job: Job, root: Path) -> Iterator[Sample | Skipped]:
    lines = read_list(job.source, root)
    for path in job.items:
        if job.source.kind == "npz":
            yield from sources.read_npz(path, job.source, lines)
        elif job.source.kind == "scene":
            yield from geotiffs.read_scene(path, job.source, lines)
        else:
            yield geotiffs.read_tile(path, root / job.source.path, job.source, lines)


def _finish(
    config: PackConfig, jobs: Sequence[Job], missing: Sequence[Skipped], last: LastSplits, out: Path
) -> PackedSet:
    """Splits over everything, the lists, and last the manifest: with it the set counts as packed."""
    found: list[Shard] = []
    skipped = list(missing)
    warned: list[Warned] = []
    for job in jobs:
        count, without_tile, odd = shards.read_record(out / "shards" / job.name)
        skipped += without_tile
        warned += odd
        if count:
            found.append(Shard(out / "shards" / job.name, job.source.name, count))
    _write_csv(out / "skipped.csv", ("path", "reason"), [(s.path, s.reason) for s in skipped])
    _write_csv(out / "warnings.csv", Warned._fields, warned)
    if not found:
        first = (
            f"; {_counted(len(skipped), 'file')} gave none, the first: {skipped[0].reason}" if skipped else ""
        )
        raise PackError(f"no tile in any source{first} (all in {out / 'skipped.csv'})")
    everything = PackedSet(out, {}, tuple(found))
    names = everything.sources()
    before = last.of(everything)
    place, split = places.assign(
        everything.column("lat"),
        everything.column("lon"),
        everything.column("gsd"),
        everything.column("group"),
        names,
        config.splits,
        before if last.binding else None,
    )
    start = 0
    for shard in found:
        shards.save_column(shard, "place", place[start : start + shard.count])
        shards.save_column(shard, "split", split[start : start + shard.count])
        start += shard.count
    splits_file.write(everything, place, split)
    manifest: dict[str, Any] = {
        "format": shards.FORMAT_VERSION,
        "preprocessing_version": PREPROCESSING_VERSION,
        "image_size": TILE_SIZE,
        "config": config.model_dump(mode="json"),
        "tiles": everything.count,
        "skipped": len(skipped),
        "warned": Counter(one.code for one in warned),
        "splits": places.summary(place, split),
        "moved": splits_file.moved(before, split),
        "shards": [{"name": s.path.name, "source": s.source, "count": s.count} for s in found],
    }
    partial = out / "manifest.json.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    partial.replace(out / splits_file.MANIFEST)
    (out / splits_file.BEFORE).unlink(missing_ok=True)
    return shards.open_packed(out)


def _write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def report(packed: PackedSet) -> str:
    """What was packed, in words: tiles, splits, files left out."""
    lines = [f"{packed.path}: {_counted(packed.count, 'tile')} in {_counted(len(packed.shards), 'shard')}"]
    for name, numbers in packed.manifest["splits"].items():
        if numbers["tiles"]:
            places = _counted(numbers["places"], "place")
            lines.append(f"  {name}: {_counted(numbers['tiles'], 'tile')} of {places}")
    if moved := packed.manifest["moved"]:
        counts = ", ".join(f"{count:,} from {way}" for way, count in moved.items())
        lines.append(
            f"  warning: tiles are in another split than when last packed here ({counts}): places that had "
            "different splits grew together, or the settings say otherwise"
        )
    if skipped := packed.manifest["skipped"]:
        lines.append(f"  {_counted(skipped, 'file')} gave no tile: {packed.path / 'skipped.csv'}")
    if warned := packed.manifest.get("warned"):
        counts = ", ".join(f"{code} ({count:,})" for code, count in warned.items())
        lines.append(f"  files with warnings: {counts}: {packed.path / 'warnings.csv'}")
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
