"""Linear models against scikit-learn, and the rules of cross-validation over places."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from training import linear, metrics
from training.linear import Standardiser

Float = NDArray[np.float64]


def problem(rows: int, dims: int, classes: int, seed: int = 0) -> tuple[Float, NDArray[np.bool_], Float]:
    """Features, multi-class labels that depend on them, and features to predict on."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(dims, classes))
    x, test = rng.normal(size=(rows, dims)), rng.normal(size=(9, dims))
    label = (x @ w + rng.normal(size=(rows, classes))).argmax(axis=1)
    return x, np.eye(classes, dtype=bool)[label], test


@pytest.mark.parametrize("dims", [5, 80])  # fewer and more features than rows
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_multi_class_solution_is_scikit_learns(dims: int, c: float) -> None:
    x, y, test = problem(40, dims, 3)
    basis = linear.rotation(x)
    w = linear.logistic(x @ basis, y, c, multi_label=False)
    mine = linear.probabilities(test @ basis, w, multi_label=False)
    theirs = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x, y.argmax(1)).predict_proba(test)
    np.testing.assert_allclose(mine, theirs, atol=2e-3)


@pytest.mark.parametrize("dims", [5, 80])
def test_the_multi_label_solution_is_scikit_learns_one_vs_rest(dims: int) -> None:
    x, y, test = problem(40, dims, 3)
    y[:, 0] |= y[:, 1]
    basis = linear.rotation(x)
    mine = linear.probabilities(
        test @ basis, linear.logistic(x @ basis, y, 0.1, multi_label=True), multi_label=True
    )
    for c in range(3):
        theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(x, y[:, c]).predict_proba(test)[:, 1]
        np.testing.assert_allclose(mine[:, c], theirs, atol=2e-3)


def test_a_class_without_positives_is_predicted_at_its_smoothed_frequency() -> None:
    x, y, test = problem(40, 5, 3)
    y[:, 2] = False
    p = linear.probabilities(test, linear.logistic(x, y, 1.0, multi_label=True), multi_label=True)
    np.testing.assert_allclose(p[:, 2], 0.5 / 41)


@pytest.mark.parametrize("multi_label", [False, True])
def test_training_tiles_of_one_class_are_predicted_as_that(multi_label: bool) -> None:
    x, y, test = problem(40, 5, 3)
    y[:] = [False, True, False]
    p = linear.published(x, y, test, multi_label=multi_label)
    assert p.tolist() == [[0, 1, 0]] * len(test)


def test_the_published_protocol_is_scikit_learns_sag_on_unscaled_features() -> None:
    x, y, test = problem(40, 6, 3)
    x *= 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sag = LogisticRegression(solver="sag", max_iter=1000, C=1, random_state=0)
        multi = sag.fit(x, y.argmax(1)).predict_proba(test)
        single = sag.fit(x, y[:, 1]).predict_proba(test)[:, 1]
    np.testing.assert_array_equal(linear.published(x, y, test, multi_label=False), multi)
    np.testing.assert_array_equal(linear.published(x, y, test, multi_label=True)[:, 1], single)


def test_the_published_protocol_is_the_same_after_a_rotation() -> None:
    x, y, test = problem(25, 60, 3)  # more features than rows: rotated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        direct = LogisticRegression(solver="sag", max_iter=1000, C=1, random_state=0).fit(x, y[:, 0])
    mine = linear.published(x, y, test, multi_label=True)[:, 0]
    np.testing.assert_allclose(mine, direct.predict_proba(test)[:, 1], atol=5e-3)


def test_the_published_protocol_predicts_constant_classes_as_they_are() -> None:
    x, y, test = problem(30, 4, 3)
    y[:, 0], y[:, 1] = True, False
    p = linear.published(x, y, test, multi_label=True)
    assert (p[:, 0] == 1).all()
    assert (p[:, 1] == 0).all()
    only_two = np.delete(problem(30, 4, 3)[1], 2, axis=1) | False
    three = np.column_stack([only_two[:, 0], ~only_two[:, 0], np.zeros(30, bool)])
    assert (linear.published(x, three, test, multi_label=False)[:, 2] == 0).all()


def test_rotation_keeps_distances() -> None:
    x = np.random.default_rng(0).normal(size=(10, 50))
    basis = linear.rotation(x)
    small = x @ basis
    assert small.shape[1] <= 10
    np.testing.assert_allclose(small @ small.T, x @ x.T, atol=1e-9)
    gram = small.T @ small
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-8)


def test_tuned_learns_what_there_is_and_regularises_noise() -> None:
    x, y, _ = problem(120, 8, 3)
    places = np.arange(120)
    good = linear.tuned(x * 1000 + 5, y, places, multi_label=False)
    assert (good.probabilities(x * 1000 + 5).argmax(1) == y.argmax(1)).mean() > 0.7
    rng = np.random.default_rng(1)
    bad = linear.tuned(rng.normal(size=(120, 60)), y, places, multi_label=False)
    assert bad.c < good.c
    assert bad.out_of_fold.shape == y.shape


def test_features_that_do_not_vary_do_no_harm() -> None:
    x, y, _ = problem(60, 4, 3)
    x = np.column_stack([x, np.full(60, 7.0)])
    fitted = linear.tuned(x, y, np.arange(60), multi_label=False)
    assert np.isfinite(fitted.probabilities(x)).all()
    assert np.isinf(Standardiser.of(x).std[-1])


def test_the_threshold_maximises_micro_f1() -> None:
    truth = np.array([[True], [True], [False], [False]])
    assert 0.2 < linear.best_threshold(truth, np.array([[0.3], [0.31], [0.2], [0.1]])) <= 0.3
    assert linear.best_threshold(np.zeros((3, 1), bool), np.zeros((3, 1))) == 0.5


def test_ridge_is_scikit_learns_at_the_chosen_penalty() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(60, 5)), rng.normal(size=(5, 2))
    y = x @ w + 0.1 * rng.normal(size=(60, 2))
    test = rng.normal(size=(7, 5))
    found = linear.ridge(x, y, test, np.arange(60))
    scale = Standardiser.of(x)
    options = [Ridge(alpha=a).fit(scale(x), y).predict(scale(test)) for a in linear.ALPHA_GRID]
    assert min(np.abs(found - o).max() for o in options) < 1e-8
    assert metrics.r2(test @ w[:, 0], found[:, 0])[0] > 0.98


def test_a_place_is_never_in_two_folds() -> None:
    places = np.random.default_rng(3).integers(12, size=100)
    folds = linear.place_folds(places, 5, 0)
    assert set(folds) == set(range(5))
    for place in np.unique(places):
        assert len(np.unique(folds[places == place])) == 1
    assert (linear.place_folds(places, 5, 1) != folds).any()
    with pytest.raises(ValueError, match="1 place; expected at least 2"):
        linear.place_folds(np.zeros(4), 5, 0)
