"""Batches of packed tiles: which tiles, in which order, how augmented — all a function of seed and step.

Nothing is drawn from a running generator, so batch number 1,000 is the same whether the 999 before it were
made in this process, in another one before it was stopped, or not at all.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import tiles
from model.bands import MEAN
from model.config import NodataFill
from training.shards import SPLITS, PackedSet, PackError

PREFETCH = 4  # batches made ahead; one is used while the next is made, the others absorb a slow disk
ORDER, AUGMENT = 0, 1  # streams of random numbers

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """B tiles as the network takes them."""

    dn: NDArray[np.uint16]  # (B, 7, S, S), invalid pixels filled
    valid: NDArray[np.bool_]  # (B, S, S) pixels with a value in every band
    encodings: NDArray[np.float32]  # (B, 4, 2), zeros where unknown or dropped
    b1_estimated: NDArray[np.bool_]  # (B,) the coastal band was computed, not measured


@dataclass(frozen=True)
class Augmentation:
    """What training does to a tile; the default is nothing."""

    flips: bool = False  # one of the eight symmetries of the square
    drop_metadata: float = 0.0  # share of tiles that lose all metadata
    drop_field: float = 0.0  # share that loses time, hour, or place, each drawn on its own


class TileSet:
    """The tiles of one split of a packed set, gathered from memory-mapped shards."""

    def __init__(
        self,
        packed: PackedSet,
        split: str | None,
        *,
        min_valid_fraction: float = 0.0,
        nodata_fill: NodataFill = "as_is",
        band_means: tuple[float, ...] = MEAN,
    ) -> None:
        """Choose tiles.

        Args:
            packed: the set.
            split: a name in `SPLITS`, or None for all tiles.
            min_valid_fraction: tiles with fewer valid pixels are left out.
            nodata_fill: what invalid pixels are fed as.
            band_means: DN, for `band_mean`.

        Raises:
            PackError: no tile is left.
        """
        keep = packed.column("valid_fraction") >= max(min_valid_fraction, np.finfo(np.float32).tiny)
        if split is not None:
            keep &= packed.column("split") == SPLITS.index(split)
        if not keep.any():
            raise PackError(
                f"{packed.path}: no tile in split {split!r} with a share of valid pixels of "
                f"{min_valid_fraction:g} or more; its tiles by split: {packed.by_split}"
            )
        counts = [s.count for s in packed.shards]
        self._shard = np.repeat(np.arange(len(counts)), counts)[keep]
        self._row = np.concatenate([np.arange(c) for c in counts])[keep]
        self._pixels = [s.column("pixels") for s in packed.shards]
        self._encodings = packed.column("encodings")[keep]
        self._b1_estimated = packed.column("b1_estimated")[keep]
        self._nodata_fill: NodataFill = nodata_fill
        self._band_means = band_means
        self.sources = packed.sources()[keep]
        self.places = packed.column("place")[keep]

    def __len__(self) -> int:
        return len(self._row)

    def gather(
        self,
        index: Int64Array,
        augmentation: Augmentation | None = None,
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """The tiles at `index`, augmented with numbers from `rng`."""
        first = self._pixels[0]
        dn = np.empty((len(index), *first.shape[1:]), np.uint16)
        shard = self._shard[index]
        for s in np.unique(shard):
            at = np.flatnonzero(shard == s)
            rows = self._row[index[at]]
            order = np.argsort(rows)  # forward through the file
            dn[at[order]] = self._pixels[s][rows[order]]
        encodings = self._encodings[index]
        if augmentation is not None and rng is not None:
            if augmentation.flips:
                dn = turned(dn, rng.integers(8, size=len(dn)))
            encodings = dropped(encodings, rng, augmentation)
        valid = (dn != 0).all(axis=1)
        dn = tiles.fill(dn, valid, self._nodata_fill, self._band_means)
        return Batch(dn, valid, encodings, self._b1_estimated[index])


def turned(dn: NDArray[np.uint16], symmetry: Int64Array) -> NDArray[np.uint16]:
    """Apply a symmetry of the square to each tile: 0-3 quarter turns, 4-7 the same after mirroring."""
    out = np.empty_like(dn)
    for k in range(8):
        rows = symmetry == k
        part = dn[rows, :, :, ::-1] if k >= 4 else dn[rows]
        out[rows] = np.rot90(part, k % 4, axes=(2, 3))
    return out


def dropped(
    encodings: NDArray[np.float32], rng: np.random.Generator, augmentation: Augmentation
) -> NDArray[np.float32]:
    """Forget metadata: everything, or the time, the hour, the place, as requests may lack them.

    A tile without a date has no hour either, and latitude and longitude are known together or not at all.
    """
    draw = rng.random((len(encodings), 4))
    everything = draw[:, 0] < augmentation.drop_metadata
    time, hour, place = (draw[:, i] < augmentation.drop_field for i in (1, 2, 3))
    lost = np.stack([time, time | hour, place, place], axis=1) | everything[:, None]
    return np.where(lost[..., None], np.float32(0), encodings)


class Order:
    """An endless sequence of tile numbers, made epoch by epoch.

    Without weights an epoch is a permutation. With weights, a tile occurs in an epoch as often as its weight
    says, rounded up or down at random (systematic sampling), so that small sources are seen evenly.
    """

    def __init__(self, count: int, seed: int, weights: NDArray[np.float64] | None = None) -> None:
        self._count, self._seed = count, seed
        self._expected = None if weights is None else weights * (count / weights.sum())
        self._cached: dict[int, Int64Array] = {}

    def epoch(self, number: int) -> Int64Array:
        """All tile numbers of an epoch, in order."""
        if number not in self._cached:
            rng = np.random.default_rng([self._seed, ORDER, number])
            order = rng.permutation(self._count)
            if self._expected is not None:
                edges = np.cumsum(self._expected[order])
                picks = np.searchsorted(
                    edges, (rng.random() + np.arange(self._count)) * (edges[-1] / self._count)
                )
                order = rng.permutation(order[np.minimum(picks, self._count - 1)])
            # Two are enough: a batch reaches over one border.
            self._cached = {n: o for n, o in self._cached.items() if n == number - 1} | {number: order}
        return self._cached[number]

    def take(self, start: int, size: int) -> Int64Array:
        """Positions `start` to `start + size` of the sequence."""
        parts = []
        while size > 0:
            number, offset = divmod(start, self._count)
            part = self.epoch(number)[offset : offset + size]
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return np.concatenate(parts).astype(np.int64)


def source_weights(tiles: TileSet, weights: Mapping[str, float] | None) -> NDArray[np.float64] | None:
    """Weight of every tile, where `weights` gives each source's share of the views; None when there are none.

    Raises:
        PackError: a source with tiles has no weight, or the reverse.
    """
    if not weights:
        return None
    names, inverse, counts = np.unique(tiles.sources, return_inverse=True, return_counts=True)
    present = [str(name) for name in names]
    if set(present) != set(weights):
        missing, surplus = sorted(set(present) - set(weights)), sorted(set(weights) - set(present))
        raise PackError(
            f"data.weights: no weight for {missing or 'none'}; no training tile of {surplus or 'none'}"
        )
    each = np.array([weights[name] for name in present]) / counts
    result: NDArray[np.float64] = each[inverse]
    return result


class Batches:
    """Training batches of this process, made ahead in a thread (numpy frees the interpreter to copy)."""

    def __init__(
        self, tiles: TileSet, order: Order, augmentation: Augmentation, *, batch_size: int, seed: int,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self._tiles, self._order, self._augmentation = tiles, order, augmentation
        self._size, self._seed, self._rank, self._world = batch_size, seed, rank, world

    def make(self, number: int) -> Batch:
        """Batch `number` of the run, counted from 0."""
        start = (number * self._world + self._rank) * self._size
        rng = np.random.default_rng([self._seed, AUGMENT, number, self._rank])
        return self._tiles.gather(self._order.take(start, self._size), self._augmentation, rng)

    def iterate(self, start: int, stop: int) -> Generator[Batch]:
        """Batches `start` to `stop`, made ahead; an error in making one is raised where it would be used."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(PREFETCH)
        closing = threading.Event()

        def work() -> None:
            try:
                for number in range(start, stop):
                    if not _offer(ready, self.make(number), closing):
                        return
            except BaseException as error:  # handed to the consumer, whatever it is
                _offer(ready, error, closing)

        thread = threading.Thread(target=work, name="landmoe-batches", daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            closing.set()
            thread.join()


def _offer(
    ready: queue.Queue[Batch | BaseException], item: Batch | BaseException, closing: threading.Event
) -> bool:
    """Wait for room; False where nobody wants batches any more."""
    while not closing.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
