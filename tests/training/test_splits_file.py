"""Splits that a packed set keeps when it is packed again."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.rasters import dn_pixels
from tests.training.packed import packing
from training import shards
from training.pack import report
from training.shards import SPLITS, PackedSet, PackError

SHARES = {"validation": 0.3, "test": 0.3}
PLACES = np.linspace(-60, 60, 40)
KM = 1 / 111.195  # degrees of latitude


def tiles(path: Path, lat: np.ndarray, prefix: str = "t") -> dict[str, object]:
    """A set of tiles at longitude 0; positions that are NaN are none. Returns its source."""
    pixels = np.broadcast_to(dn_pixels(40, 40), (len(lat), 7, 40, 40))
    names = np.array([f"{prefix}{i}" for i in range(len(lat))])
    np.savez(path, x=pixels, lat=lat, lon=np.where(np.isnan(lat), np.nan, 0), id=names, group=names)
    return {"name": path.stem, "kind": "npz", "path": path.name}


def splits(packed: PackedSet, source: str) -> list[str]:
    rows = np.flatnonzero(packed.sources() == source)
    return [SPLITS[code] for code in packed.column("split")[rows]]


def rewritten(file: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    with file.open(newline="") as lines:
        rows = [change(row) for row in csv.DictReader(lines)]
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_tiles_that_join_a_place_and_sort_before_it_do_not_move_it(tmp_path: Path) -> None:
    old = tiles(tmp_path / "old.npz", PLACES)
    before = splits(packing(tmp_path, old, splits=SHARES), "old")
    assert set(before) == {"train", "validation", "test"}
    new = tiles(tmp_path / "new.npz", PLACES + 6 * KM)
    fresh = packing(tmp_path, new, old, splits=SHARES, out="fresh")
    assert splits(fresh, "old") != before  # or nothing would be shown below
    found = packing(tmp_path, new, old, splits=SHARES)
    assert splits(found, "old") == splits(found, "new") == before
    assert found.manifest["moved"] == {}
    assert "warning" not in report(found)


def test_a_source_of_another_name_and_other_ids_in_its_place_are_known_by_position(tmp_path: Path) -> None:
    old = tiles(tmp_path / "old.npz", PLACES)
    packing(tmp_path, old, splits=SHARES)
    rewritten(tmp_path / "packed/splits.csv", lambda row: row | {"split": "validation"})
    renamed = tiles(tmp_path / "renamed.npz", PLACES)
    found = packing(tmp_path, renamed, splits=SHARES)
    assert set(splits(found, "renamed")) == {"validation"}
    elsewhere = tiles(tmp_path / "renamed.npz", PLACES + 1)  # the same ids
    fresh = packing(tmp_path, elsewhere, splits=SHARES, out="fresh")
    assert splits(packing(tmp_path, elsewhere, splits=SHARES), "renamed") == splits(fresh, "renamed")


def test_tiles_without_a_position_keep_their_split_by_their_names(tmp_path: Path) -> None:
    source = tiles(tmp_path / "old.npz", np.full(5, np.nan))
    packing(tmp_path, source, splits=SHARES)
    rewritten(tmp_path / "packed/splits.csv", lambda row: row | {"split": "test"})
    source = tiles(tmp_path / "old.npz", np.full(6, np.nan))
    assert splits(packing(tmp_path, source, splits=SHARES), "old")[:5] == ["test"] * 5


def test_a_file_without_positions_counts_by_names(tmp_path: Path) -> None:
    source = tiles(tmp_path / "old.npz", PLACES)
    packing(tmp_path, source, splits=SHARES)
    kept = ("id", "source", "place")
    change = {"split": "validation"}
    rewritten(tmp_path / "packed/splits.csv", lambda row: {name: row[name] for name in kept} | change)
    assert set(splits(packing(tmp_path, source, splits=SHARES), "old")) == {"validation"}


@pytest.mark.parametrize("order", [("train", "test"), ("test", "train"), ("validation", "test")])
def test_places_that_grow_together_go_to_the_more_protected_split(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    old = tiles(tmp_path / "old.npz", np.array([0, 12 * KM]))
    packing(tmp_path, old)
    by_name = dict(zip(("t0", "t1"), order, strict=True))
    rewritten(tmp_path / "packed/splits.csv", lambda row: row | {"split": by_name[row["id"]]})
    found = packing(tmp_path, old, tiles(tmp_path / "between.npz", np.array([6 * KM])))
    assert splits(found, "old") == ["test", "test"]
    other = next(name for name in order if name != "test")
    assert found.manifest["moved"] == {f"{other} to test": 1}
    assert (
        f"warning: tiles are in another split than when last packed here (1 from {other} to test)"
        in report(found)
    )


def test_other_settings_draw_anew_and_say_what_moved(tmp_path: Path) -> None:
    source = tiles(tmp_path / "old.npz", PLACES)
    before = splits(packing(tmp_path, source, splits=SHARES), "old")
    other = SHARES | {"seed": 1}
    expected = splits(packing(tmp_path, source, splits=other, out="fresh"), "old")
    found = packing(tmp_path, source, splits=other)
    assert splits(found, "old") == expected != before
    changed = sum(a != b for a, b in zip(before, expected, strict=True))
    assert sum(found.manifest["moved"].values()) == changed > 0
    assert "warning" in report(found)


def test_a_rule_goes_before_what_was(tmp_path: Path) -> None:
    source = tiles(tmp_path / "old.npz", PLACES)
    rules = SHARES | {"rules": [{"split": "test", "source": "old"}]}
    packing(tmp_path, source, splits=rules)
    rewritten(tmp_path / "packed/splits.csv", lambda row: row | {"split": "train"})
    found = packing(tmp_path, source, splits=rules)
    assert set(splits(found, "old")) == {"test"}
    assert found.manifest["moved"] == {"train to test": len(PLACES)}


def test_an_interrupted_packing_forgets_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tiles(tmp_path / "old.npz", PLACES)
    before = splits(packing(tmp_path, old, splits=SHARES), "old")
    new = tiles(tmp_path / "new.npz", PLACES + 6 * KM)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_shard", stopped)
            with pytest.raises(KeyboardInterrupt):
                packing(tmp_path, new, old, splits=SHARES)
    found = packing(tmp_path, new, old, splits=SHARES)
    assert splits(found, "old") == before
    assert [path.name for path in found.path.glob("manifest*")] == ["manifest.json"]


@pytest.mark.parametrize("content", ["id,source\na,b\n", "id,source,place,split\na,b,0,nowhere\n"])
def test_a_file_that_cannot_be_used_is_named_before_anything_is_removed(tmp_path: Path, content: str) -> None:
    source = tiles(tmp_path / "old.npz", PLACES)
    found = packing(tmp_path, source)
    (found.path / "splits.csv").write_text(content)
    with pytest.raises(PackError, match=r"splits\.csv cannot be used .* Remove it"):
        packing(tmp_path, source)
    assert shards.open_packed(found.path).count == len(PLACES)
