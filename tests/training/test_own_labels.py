"""Tasks made of labels that belong to no known nomenclature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from tests.training.scenery import PREPROCESSING
from training import tasks
from training.comparison import compare
from training.features import Features
from training.heldout import Tiles, read
from training.pack import PackConfig, pack
from training.tasks import Task


def tiles(labels: Sequence[str], places: Sequence[int] | None = None, source: str = "mine") -> Tiles:
    """A tile for every text of labels, each in a place of its own if no places are given."""
    count = len(labels)
    rows = np.arange(count)
    pixels = np.random.default_rng(0).integers(7_000, 9_000, (count, 7, 40, 40)).astype(np.uint16)
    columns = {
        "encodings": np.zeros((count, 4, 2), np.float32),
        "labels": np.array(labels),
        "place": np.array(rows if places is None else places, np.int32),
        "source": np.full(count, source),
    }
    return Tiles(columns, (pixels,), np.zeros_like(rows), rows, PREPROCESSING, None)


def only(labels: Sequence[str], places: Sequence[int] | None = None) -> tuple[Task, list[str]]:
    (task,), left_out = tasks.find(tiles(labels, places), 1000)
    return task, left_out


def test_classes_are_the_labels_found_in_order() -> None:
    task, left_out = only(["forest", "field", ""] * 20)
    assert (task.name, task.source, task.classes) == ("mine", "mine", ("field", "forest"))
    assert not task.multi_label
    assert len(task.tiles) == 40
    assert task.truth.argmax(axis=1).tolist() == [1, 0] * 20
    assert left_out == []


def test_several_labels_on_any_tile_make_it_multi_label() -> None:
    task, _ = only(["forest", "field"] * 20 + ["forest|field"])
    assert task.multi_label
    assert task.truth[-1].tolist() == [True, True]


def test_a_label_that_is_repeated_or_spaced_is_one() -> None:
    task, _ = only(["forest|forest", " field", "field |"] * 20)
    assert task.classes == ("field", "forest")
    assert not task.multi_label


def test_rare_labels_make_no_class_and_are_named() -> None:
    places = [*range(60), *range(60, 64), *([70] * 9)]
    task, left_out = only([*["forest", "field"] * 30, *["bog"] * 4, *["quarry"] * 9], places)
    assert task.classes == ("field", "forest")
    assert len(task.tiles) == 60
    assert left_out == [
        "mine: labels of under 5 tiles or 2 places: 'bog' (4 tiles, 4 places), 'quarry' (9 tiles, 1 places); "
        "with them 13 tiles that have no other"
    ]


def test_a_tile_keeps_its_other_labels() -> None:
    task, left_out = only(["forest", "field", "forest|field"] * 20 + ["field|typo"])
    assert task.classes == ("field", "forest")
    assert task.truth[-1].tolist() == [True, False]
    assert left_out[0].endswith("with them 0 tiles that have no other")


def test_a_column_of_remarks_is_no_task() -> None:
    found, left_out = tasks.find(tiles([f"remark {n}" for n in range(200)]), 1000)
    assert found == []
    assert "and 195 more; with them 200 tiles" in left_out[0]
    assert "mine: 0 tiles labelled for mine in 0 places; expected at least 30 in 5" in left_out[1]


def test_one_label_alone_is_no_task() -> None:
    found, left_out = tasks.find(tiles(["Martian"] * 40), 1000)
    assert found == []
    assert left_out == ["mine: 'Martian' is its only label; expected at least 2"]


def test_a_name_that_the_nomenclature_lacks_makes_the_labels_ones_own() -> None:
    task, _ = only(["Pastures", "Mixed forest"] * 20)
    assert task.name == "bigearthnet-19"
    task, _ = only(["Pastures", "Mixed forest", "Car parks"] * 20)
    assert (task.name, task.classes) == ("mine", ("Car parks", "Mixed forest", "Pastures"))


def test_labels_of_other_splits_are_no_classes(tmp_path: Path) -> None:
    count = 80
    x = np.random.default_rng(0).integers(7_000, 9_000, (count, 7, 40, 40)).astype(np.uint16)
    lat = np.where(np.arange(count) < 40, np.linspace(0, 39, count), np.linspace(0, -39, count))
    label = [*["forest", "field"] * 20, *["forest", "field", "bog", "bog"] * 10]
    np.savez(tmp_path / "mine.npz", x=x, lat=lat, lon=np.full(count, 5.0), label=np.array(label))
    config = PackConfig.model_validate(
        {
            "sources": [{"name": "mine", "kind": "npz", "path": "mine.npz"}],
            "splits": {
                "validation": 0,
                "test": 0,
                "rules": [{"split": "test", "box": [-60, 0, -0.1, 10]}],
            },
        }
    )
    packed = pack(config, tmp_path, tmp_path / "packed", workers=1, quiet=True)
    classes = {
        split: tasks.find(read(packed.path, PREPROCESSING, (split,)), 1000)[0][0].classes
        for split in ("train", "test")
    }
    assert classes == {"train": ("field", "forest"), "test": ("bog", "field", "forest")}


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_class_that_no_fold_can_learn_does_not_stop_an_evaluation(multi_label: bool) -> None:
    # In two places of many: some folds, and draws of few labels, hold both of them out.
    labels = ["bog", "bog", "bog", "forest|bog" if multi_label else "bog", "bog", *["forest"] * 30]
    task, _ = only(labels, [0, 0, 0, 1, 1, *range(2, 32)])
    x = task.tiles.raw().astype(np.float64).mean(axis=(2, 3))
    with Progress(disable=True) as progress:
        for seed in range(4):
            found = compare(
                task, [Features("band statistics", "", "off", x)], progress,
                count=2, repeats=1, published_repeats=1, resamples=20, draws=4, seed=seed,
            )  # fmt: skip
            assert len(found["probes"]) == 2


def test_a_draw_has_several_places_also_where_nearly_all_tiles_are_in_one() -> None:
    places = [*range(9), *[9] * 3000]
    (task,), _ = tasks.find(tiles(["field", "forest", "lake"] * 1003, places), 60)
    assert len(task.tiles) == 60
    assert len(np.unique(task.places)) >= tasks.MIN_PLACES


def test_two_sources_of_the_same_nomenclature_are_told_apart_and_own_ones_by_name() -> None:
    one, other = tiles(["Forest", "River"] * 20, source="a"), tiles(["Forest", "River"] * 20, source="b")
    both = Tiles(
        {name: np.concatenate([one[name], other[name]]) for name in one.columns},
        one.pixels + other.pixels, np.repeat([0, 1], 40), np.tile(np.arange(40), 2), PREPROCESSING, None,
    )  # fmt: skip
    names = [t.name for t in tasks.find(both, 1000)[0]]
    assert names == ["eurosat-10 (a)", "eurosat-10 (b)"]
    assert [tasks.file_name(n) for n in names] == ["eurosat-10-a", "eurosat-10-b"]
    assert tasks.file_name("...") == "labels"
    assert tasks.file_name("-x" + "y" * 99) == "x" + "y" * 63
