"""Embeddings, controls, tasks, retrieval, few shots and land cover on tiles whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import checkpoint
from model.outputs import POOLINGS
from tests.training.packed import packed
from tests.training.scenery import PREPROCESSING, TINY, bigearthnet, eurosat, scene_with_cover
from training import embeddings, kshot, landcover, metrics, retrieval, tasks
from training.heldout import EvaluationError, Tiles, read
from training.shards import PackError


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    folder = tmp_path_factory.mktemp("data")
    eurosat(folder / "eurosat.npz")
    bigearthnet(folder / "ben.npz")
    return read(folder, PREPROCESSING)


def test_an_embedding_does_not_depend_on_the_batch(tiles: Tiles) -> None:
    encoder = checkpoint.initialise(TINY, 0, PREPROCESSING).model.encoder
    few = tiles.take(np.arange(20))
    together = embeddings.embed(encoder, few.dn(), few["encodings"])
    alone = embeddings.embed(encoder, few.dn()[17:18], few["encodings"][17:18])
    for p in POOLINGS:
        np.testing.assert_allclose(together[p][17], alone[p][0], atol=1e-5)


def test_shuffled_metadata_come_from_other_places_and_each_is_used_once() -> None:
    places = np.array([1, 1, 1, 2, 2, 3, 4, 5, 5, 6])
    partner = embeddings.exchanged(places, 0)
    assert sorted(partner) == list(range(10))
    assert (places[partner] != places).all()
    assert (embeddings.exchanged(places, 1) != partner).any()


def test_metadata_off_is_zeros(tiles: Tiles) -> None:
    assert not embeddings.with_metadata(tiles, "off").any()
    np.testing.assert_array_equal(embeddings.with_metadata(tiles, "on"), tiles["encodings"])


def test_band_statistics_by_hand() -> None:
    dn = np.full((1, 7, 2, 2), 10, np.uint16)
    dn[0, 0] = [[10, 20], [30, 40]]
    found = embeddings.band_statistics(dn, (10.0,) * 7, (10.0,) * 7).reshape(4, 7)
    np.testing.assert_allclose(found[:, 0], [1.5, np.std([0, 1, 2, 3]), 0, 3])
    np.testing.assert_allclose(found[:, 1:], 0)


def test_tasks_are_told_by_their_labels(tiles: Tiles) -> None:
    found, left_out = tasks.find(tiles, 1000)
    assert [t.name for t in found] == ["bigearthnet-19", "eurosat-10"]
    ben, euro = found
    assert (ben.multi_label, euro.multi_label) == (True, False)
    assert len(ben.tiles) == 47  # the tile with no label of the nomenclature is left out
    assert (euro.truth.sum(axis=1) == 1).all()
    support = {row["label"]: row for row in ben.support}
    assert support["Coastal wetlands"] == {"label": "Coastal wetlands", "positives": 2, "supported": False}
    assert support["Pastures"]["supported"]
    assert left_out == []


def test_small_label_sets_are_left_out_with_the_reason(tmp_path: Path) -> None:
    eurosat(tmp_path / "few.npz", 2)
    found, left_out = tasks.find(read(tmp_path, PREPROCESSING), 1000)
    assert found == []
    assert "few: 20 tiles labelled for eurosat-10 in 20 places; expected at least 30 in 5" in left_out[0]


def test_only_the_asked_splits_of_a_packed_set_are_read(tmp_path: Path) -> None:
    whole = packed(tmp_path, validation=0.4, test=0.3)
    held_out = read(whole.path, PREPROCESSING, ("test",))
    assert held_out.seen is False
    expected = set(whole.column("id")[whole.column("split") == 2])
    assert set(held_out["id"]) == expected
    assert read(whole.path, PREPROCESSING, ("train",)).seen is True
    assert (held_out.dn() != 0).all()  # holes are filled
    assert (held_out.raw() == 0).any()
    with pytest.raises(PackError, match="no split tset"):
        read(whole.path, PREPROCESSING, ("tset",))


def test_other_hour_conventions_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    whole = packed(tmp_path)
    with pytest.raises(PackError, match="hour_convention full, the network was trained with first_digit"):
        read(whole.path, replace(PREPROCESSING, hour_convention="first_digit"), ("train",))


def test_limited_takes_so_many_of_a_place() -> None:
    place = np.repeat([0, 1, 2], [50, 3, 1])
    rows = np.arange(54)
    pixels = (np.zeros((54, 7, 40, 40), np.uint16),)
    many = Tiles({"place": place}, pixels, np.zeros_like(rows), rows, PREPROCESSING, None)
    assert np.bincount(many.limited(100, 2)["place"]).tolist() == [2, 2, 1]
    assert len(many.limited(4, 2)) == 4
    assert len(many.limited(10)) == 10


def test_retrieval_by_hand() -> None:
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    weights = metrics.resamples(np.arange(4), 20)
    found = retrieval.evaluate(x, truth, np.arange(4), weights, standardise=False)
    assert found.mean_average_precision.value == 1
    assert found.chance == pytest.approx(1 / 3)
    crossed = retrieval.evaluate(x, truth[[0, 2, 1, 3]], np.arange(4), weights, standardise=False)
    assert crossed.mean_average_precision.value < 0.6


def test_the_querys_own_place_is_no_candidate() -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    truth = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    weights = np.ones((1, 3))
    found = retrieval.evaluate(x, truth, np.array([0, 0, 1]), weights, standardise=False)
    assert np.isnan(found.mean_average_precision.value)  # nothing relevant lies elsewhere


def test_more_labels_help_and_features_that_say_nothing_stay_at_chance() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), 30)
    truth = np.eye(3, dtype=bool)[label]
    good = truth.astype(float) + rng.normal(0, 0.5, size=(90, 3))
    found = kshot.curves(
        {"good": good, "noise": rng.normal(size=(90, 3))}, truth, np.arange(90), multi_label=False, draws=15
    )
    mean = {name: {k: np.mean(v) for k, v in curve.items()} for name, curve in found.items()}
    assert mean["good"]["1"] < mean["good"]["all"]
    assert mean["good"]["all"] > 0.75
    assert all(abs(v - 1 / 3) < 0.12 for v in mean["noise"].values())
    assert all(len(v) == 15 for v in found["good"].values())


def test_k_shots_have_k_of_every_class_where_there_are() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)
    chosen = kshot.choose(truth, np.arange(5), 2)
    counts = truth[chosen].sum(axis=0)
    assert counts.tolist() == [2, 2, 1]  # the third class has only one
    assert len(set(chosen)) == len(chosen)


def test_fractions_weigh_partial_pixels_by_their_area(tmp_path: Path) -> None:
    _, path = scene_with_cover(tmp_path)
    cover = landcover.read_cover(path, {1: "dark", 2: "bright"})
    left, top = landcover._apply(~cover.inverse, 3.5, 2.0)
    right, bottom = landcover._apply(~cover.inverse, 5.0, 3.0)
    expected = (0.5 * (cover.codes[2, 3] == 1) + (cover.codes[2, 4] == 1)) / 1.5
    found = landcover.fractions(cover, left, top, right, bottom)
    assert found is not None
    np.testing.assert_allclose(found, [expected, 1 - expected])
    assert landcover.fractions(cover, left - 1e6, top, right, bottom) is None


def test_land_cover_regression_learns_from_features_that_show_it_only(tmp_path: Path) -> None:
    scene, path = scene_with_cover(tmp_path)
    windows = landcover.cut(scene, landcover.read_cover(path, {1: "dark", 2: "bright"}), 20)
    assert len(windows.dn) == 3 * 25
    np.testing.assert_allclose(windows.fractions.sum(axis=1), 1)
    np.testing.assert_allclose(windows.lat, 45.15, atol=0.05)
    strips = landcover.blocks(windows.centre)
    weights = metrics.resamples(strips, 100)
    brightness = windows.dn.astype(float).mean(axis=(2, 3))
    found = landcover.regress(brightness, windows, weights)
    assert found["dark"].value > 0.95
    assert set(found) == {"dark", "bright", "mean"}
    nothing = np.random.default_rng(0).normal(size=brightness.shape)
    assert landcover.regress(nothing, windows, weights)["mean"].value < 0.2
    assert found["mean"].minus(landcover.regress(nothing, windows, weights)["mean"]).interval[0] > 0


def test_a_scene_elsewhere_is_refused(tmp_path: Path) -> None:
    scene, path = scene_with_cover(tmp_path)
    cover = landcover.read_cover(path, {7: "nothing"})
    with pytest.raises(EvaluationError, match=r"no window of .* is covered"):
        landcover.cut(scene, cover, 40)
    other = landcover.Cover(cover.codes, cover.names, "EPSG:4326", cover.inverse)
    with pytest.raises(EvaluationError, match="expected the same"):
        landcover.cut(scene, other, 40)


def test_tiles_of_a_set_find_their_place_on_the_raster(tmp_path: Path) -> None:
    scene, path = scene_with_cover(tmp_path)
    cover = landcover.read_cover(path, {1: "dark", 2: "bright"})
    cut = landcover.cut(scene, cover, 40)
    count = len(cut.dn)
    rows = np.arange(count + 1)
    columns = {
        "lat": np.append(cut.lat, 0.0),
        "lon": np.append(cut.lon, 0.0),  # the last one lies elsewhere
        "gsd": np.full(count + 1, 30.0),
        "valid_fraction": np.ones(count + 1),
    }
    pixels = (np.concatenate([cut.dn, cut.dn[:1]]),)
    tiles = Tiles(columns, pixels, np.zeros_like(rows), rows, PREPROCESSING, None)
    windows, index = landcover.under(tiles, cover)
    np.testing.assert_array_equal(index, np.arange(count))
    np.testing.assert_allclose(windows.fractions, cut.fractions, atol=1e-6)
    np.testing.assert_allclose(np.ptp(windows.centre, axis=0), np.ptp(cut.centre, axis=0), atol=1e-6)
    few = windows.take(np.array([3, 5]))
    np.testing.assert_array_equal(few.dn, windows.dn[[3, 5]])
