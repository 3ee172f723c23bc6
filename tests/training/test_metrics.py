"""Scores against hand-computed values and scikit-learn, and what the bootstrap sees and does not see."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from training import metrics
from training.metrics import Estimate


def test_average_precision_by_hand() -> None:
    # Ranking: hit, miss, hit → (1/1 + 2/3) / 2
    truth, scores = np.array([True, False, True]), np.array([0.9, 0.5, 0.1])
    assert metrics.average_precision(truth, scores)[0] == pytest.approx(5 / 6)
    assert np.isnan(metrics.average_precision(np.zeros(3, bool), scores)[0])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns_with_ties_and_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(60) < 0.3, np.round(rng.random(60), 1)
    weights = rng.integers(0, 3, size=(4, 60)).astype(float)
    expected = [reference.average_precision_score(truth, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(metrics.average_precision(truth, scores, weights), expected)


def test_multi_label_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((80, 4)) < 0.4
    p = np.clip(truth * 0.3 + rng.random((80, 4)) * 0.7, 0, 1)
    found = metrics.classification(truth, p, multi_label=True, threshold=0.4)
    predicted = p >= 0.4
    assert found["micro_map"][0] == pytest.approx(
        reference.average_precision_score(truth, p, average="micro")
    )
    assert found["macro_map"][0] == pytest.approx(
        reference.average_precision_score(truth, p, average="macro")
    )
    assert found["micro_f1"][0] == pytest.approx(reference.f1_score(truth, predicted, average="micro"))
    assert found["macro_f1"][0] == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert "accuracy" not in found


def test_multi_class_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(3, size=90)
    truth = np.eye(3, dtype=bool)[label]
    p = rng.dirichlet(np.ones(3), size=90) * 0.5 + truth * 0.2
    found = metrics.classification(truth, p, multi_label=False)
    assert found["accuracy"][0] == pytest.approx((p.argmax(1) == label).mean())
    assert found["macro_f1"][0] == pytest.approx(reference.f1_score(label, p.argmax(1), average="macro"))


def test_classes_with_under_five_positives_have_no_score_and_do_not_move_the_macro_average() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random((50, 3)) < 0.4
    truth[:, 2] = False
    truth[:4, 2] = True
    p = rng.random((50, 3))
    assert metrics.supported(truth).tolist() == [True, True, False]
    with_it = metrics.classification(truth, p, multi_label=True)
    p[:, 2] = 1 - p[:, 2]
    other = metrics.classification(truth, p, multi_label=True)
    assert with_it["macro_map"][0] == other["macro_map"][0]
    assert with_it["micro_map"][0] != other["micro_map"][0]
    truth[4, 2] = True
    assert metrics.supported(truth).tolist() == [True, True, True]


def test_weights_are_how_often_a_tile_was_drawn() -> None:
    rng = np.random.default_rng(3)
    truth, p = rng.random((30, 2)) < 0.5, rng.random((30, 2))
    drawn = rng.integers(30, size=30)
    weights = np.bincount(drawn, minlength=30)[None].astype(float)
    weighted = metrics.classification(truth, p, multi_label=True, weights=weights)
    repeated = metrics.classification(truth[drawn], p[drawn], multi_label=True)
    for name in ("micro_map", "macro_map", "micro_f1", "macro_f1"):
        assert weighted[name][0] == pytest.approx(repeated[name][0]), name


def test_r2_is_scikit_learns_and_unknown_without_variance() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=40)
    predicted = y + rng.normal(size=40)
    weights = rng.integers(0, 4, size=(1, 40)).astype(float)
    expected = reference.r2_score(y, predicted, sample_weight=weights[0])
    assert metrics.r2(y, predicted, weights)[0] == pytest.approx(expected)
    assert np.isnan(metrics.r2(np.ones(5), np.ones(5))[0])


def test_log_loss_by_hand() -> None:
    truth = np.array([[True, False], [False, True]])
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    assert metrics.log_loss(truth, p, multi_label=False) == pytest.approx(-np.log([0.8, 0.6]).mean())
    assert metrics.log_loss(truth, p, multi_label=True) == pytest.approx(-np.log([0.8, 0.8, 0.6, 0.6]).mean())


def test_a_resample_draws_whole_places() -> None:
    places = np.array([7, 7, 3, 9, 9, 9])
    weights = metrics.resamples(places, 100)
    assert weights.shape == (100, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()  # as many places as there are
    np.testing.assert_array_equal(weights, metrics.resamples(places, 100))


def estimate(truth: np.ndarray, p: np.ndarray, weights: np.ndarray) -> Estimate:
    value = metrics.classification(truth, p, multi_label=False)["accuracy"]
    samples = metrics.classification(truth, p, multi_label=False, weights=weights)["accuracy"]
    return Estimate(float(value[0]), samples)


def noisy(label: np.ndarray, share_right: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities that are right for about a share of the tiles."""
    guess = np.where(rng.random(len(label)) < share_right, label, (label + 1) % 4)
    return np.eye(4)[guess]


def test_the_paired_bootstrap_detects_a_real_difference_and_no_other() -> None:
    excluded = {"real": 0, "null": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        label = rng.integers(4, size=200)
        truth = np.eye(4, dtype=bool)[label]
        weights = metrics.resamples(np.arange(200), 200, seed)
        base = estimate(truth, noisy(label, 0.6, rng), weights)
        for name, share in (("real", 0.8), ("null", 0.6)):
            low, high = estimate(truth, noisy(label, share, rng), weights).minus(base).interval
            excluded[name] += low > 0 or high < 0
    assert excluded["real"] >= 38  # a difference of 0.2, with a standard error of about 0.045
    assert excluded["null"] <= 6  # 5 % are expected


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(4, size=100)
    truth = np.eye(4, dtype=bool)[label]
    p = noisy(label, 0.6, rng)
    better = p.copy()
    wrong = np.flatnonzero(p.argmax(1) != label)[:5]
    better[wrong] = np.eye(4)[label[wrong]]
    paired = metrics.resamples(np.arange(100), 500, 0)
    a, b = estimate(truth, better, paired), estimate(truth, p, paired)
    other = estimate(truth, p, metrics.resamples(np.arange(100), 500, 1))
    assert np.diff(a.minus(b).interval)[0] < 0.5 * np.diff(a.minus(other).interval)[0]


def test_estimates_become_json_without_nan() -> None:
    assert Estimate(float("nan"), np.full(3, np.nan)).to_dict() == {"value": None, "low": None, "high": None}
    assert Estimate(0.5, np.zeros(0)).to_dict() == {"value": 0.5, "low": None, "high": None}
