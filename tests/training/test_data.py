from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from model import bands, tiles
from tests.training.packed import packed
from training.data import (
    Augmentation,
    Batch,
    Batches,
    Order,
    TileSet,
    dropped,
    source_weights,
    turned,
)
from training.shards import PackError, open_packed

ALL = Augmentation(flips=True, drop_metadata=0.3, drop_field=0.2)


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(getattr(a, f), getattr(b, f)) for f in ("dn", "valid", "encodings", "b1_estimated")
    )


def batches(folder: Path, **options: object) -> Batches:
    found = TileSet(open_packed(folder / "packed"), None)
    values: dict[str, object] = {"batch_size": 5, "seed": 3}
    return Batches(found, Order(len(found), 3), ALL, **(values | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    packed(path)
    return path


def test_gather_is_the_packed_tiles_in_the_order_asked_for(folder: Path) -> None:
    found = open_packed(folder / "packed")
    index = np.array([7, 0, 7, 23])
    batch = TileSet(found, None).gather(index)
    np.testing.assert_array_equal(batch.dn, found.column("pixels")[index])
    np.testing.assert_array_equal(batch.encodings, found.column("encodings")[index])
    np.testing.assert_array_equal(batch.valid, (batch.dn != 0).all(axis=1))


def test_invalid_pixels_are_filled_as_the_service_fills_them(folder: Path) -> None:
    found = open_packed(folder / "packed")
    batch = TileSet(found, None, nodata_fill="band_mean", band_means=bands.MEAN).gather(np.arange(6))
    pixels = np.array(found.column("pixels")[:6])
    valid = (pixels != 0).all(axis=1)
    assert not valid.all()
    for i in range(6):
        np.testing.assert_array_equal(batch.dn[i], tiles.fill(pixels[i], valid[i], "band_mean"))
    np.testing.assert_array_equal(batch.valid, valid)


def test_splits_and_valid_fraction_choose_tiles(folder: Path) -> None:
    found = open_packed(folder / "packed")
    counts = {split: len(TileSet(found, split)) for split in ("train", "validation")}
    assert counts == {k: v["tiles"] for k, v in found.manifest["splits"].items() if k in counts}
    assert len(TileSet(found, None, min_valid_fraction=0.99)) == 16
    with pytest.raises(PackError, match=r"no tile in split 'test' .*by split: train \d+, validation \d+$"):
        TileSet(found, "test")
    with pytest.raises(PackError, match=r"valid pixels of 1\.5 or more"):
        TileSet(found, None, min_valid_fraction=1.5)


def test_the_eight_symmetries_are_those_of_the_square() -> None:
    tile = np.arange(7 * 16, dtype=np.uint16).reshape(1, 7, 4, 4)
    found = [turned(tile, np.array([k]))[0] for k in range(8)]
    expected = [np.rot90(m, k, axes=(1, 2)) for m in (tile[0], tile[0, :, :, ::-1]) for k in range(4)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(found, 2))
    together = turned(np.repeat(tile, 8, axis=0), np.arange(8))
    np.testing.assert_array_equal(together, np.stack(found))


def test_metadata_is_forgotten_as_often_as_asked_and_as_requests_lack_it() -> None:
    encodings = np.ones((20_000, 4, 2), np.float32)
    known = dropped(encodings, np.random.default_rng(0), Augmentation(False, 0.3, 0.1)).any(axis=2)
    week, hour, lat, lon = known.T
    assert (~known.any(axis=1)).mean() == pytest.approx(0.3 + 0.7 * 0.01, abs=0.01)
    assert (~lat).mean() == pytest.approx(0.37, abs=0.01)
    assert (~hour).mean() == pytest.approx(1 - 0.7 * 0.81, abs=0.01)
    np.testing.assert_array_equal(lat, lon)
    assert not (hour & ~week).any()  # an hour without a date cannot be sent
    assert (week & ~hour).any()


def test_an_epoch_sees_every_tile_once() -> None:
    order = Order(10, seed=1)
    first, second = order.take(0, 10), order.take(10, 10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert Order(10, seed=2).take(0, 10).tolist() != first.tolist()


def test_order_is_a_sequence_however_it_is_read() -> None:
    whole = Order(7, seed=1).take(0, 40)
    parts = [Order(7, seed=1).take(start, 4) for start in range(0, 40, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_weights_decide_how_often_a_tile_is_seen() -> None:
    weights = np.repeat([1.0, 4.0], [300, 100])
    order = Order(400, seed=1, weights=weights)
    counts = np.bincount(order.epoch(0), minlength=400)
    expected = weights * 400 / weights.sum()
    assert (np.abs(counts - expected) < 1).all()  # rounded up or down, never more
    assert counts.sum() == 400


def test_source_weights_are_shares_of_the_views(folder: Path) -> None:
    found = TileSet(open_packed(folder / "packed"), None)
    weights = source_weights(found, {"set": 3.0})
    assert weights is not None
    assert weights.sum() == pytest.approx(3)
    assert source_weights(found, {}) is None
    with pytest.raises(PackError, match=r"no weight for \['set'\]; no training tile of \['sat'\]"):
        source_weights(found, {"sat": 1.0})


def test_batches_are_the_same_wherever_they_are_made(folder: Path) -> None:
    through = list(batches(folder).iterate(0, 12))
    resumed = list(batches(folder).iterate(7, 12))
    assert len(through) == 12
    assert all(same(a, b) for a, b in zip(through[7:], resumed, strict=True))
    assert not same(through[0], through[5])
    assert not same(through[0], batches(folder, seed=4).make(0))


def test_processes_share_an_epoch(folder: Path) -> None:
    plain = {"batch_size": 6, "world": 2}
    found = TileSet(open_packed(folder / "packed"), None)
    made = [
        Batches(found, Order(24, 3), Augmentation(), seed=3, rank=r, **plain).make(n)  # type: ignore[arg-type]
        for n in range(2)
        for r in range(2)
    ]
    seen = {tuple(tile.reshape(-1)[:200].tolist()) for batch in made for tile in batch.dn}
    assert len(seen) == 24


def test_an_error_in_the_thread_reaches_the_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = batches(folder)
    make = made.make
    monkeypatch.setattr(made, "make", lambda n: make(n) if n < 3 else 1 / 0)
    stream = made.iterate(0, 9)
    for _ in range(3):
        next(stream)
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_leaving_the_loop_ends_the_thread(folder: Path) -> None:
    stream = batches(folder).iterate(0, 10_000)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "landmoe-batches"]
