"""Classifiers and scalers of scikit-learn in a published file become one linear map, or are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from tests.training import published_probes as published
from tests.training.published_probes import ABC, classes, features, same
from training.published_probe import ImportProbeError, import_probe


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("multilabel", [False, True])
def test_predicts_what_scikit_learn_predicts(
    tmp_path: Path, multilabel: bool, dtype: Any, scale: bool
) -> None:
    x = features(dtype=dtype)
    y = np.stack([classes(seed=s, count=2) for s in range(3)], axis=1) if multilabel else classes()
    attributes, expected = published.fit(x, y, scale=scale, solver="sag")
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    assert (found.task, found.pooling, found.labels, found.threshold) == (
        "multi-label" if multilabel else "multi-class", "mean", ABC, 0.5,
    )  # fmt: skip
    same(found, x, expected)
    assert published.MODULE not in sys.modules


def test_a_scaler_far_from_zero_loses_no_precision(tmp_path: Path) -> None:
    x = features() * 1e-2 + 300
    attributes, expected = published.fit(x, classes(), scale=True)
    published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize(("centred", "scaled"), [(True, False), (False, True), (False, False)])
def test_half_a_scaler(tmp_path: Path, centred: bool, scaled: bool) -> None:
    x = features() + 2
    scaler = StandardScaler(with_mean=centred, with_std=scaled).fit(x)
    model = LogisticRegression(max_iter=500).fit(scaler.transform(x), classes())
    published.dump(tmp_path / "p.joblib", scale=True, scaler=scaler, model=model)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, model.predict_proba(scaler.transform(x)))


def test_a_fitted_scaler_that_is_not_used_is_not_applied(tmp_path: Path) -> None:
    x = features() + 2
    attributes, expected = published.fit(x, classes())
    published.dump(tmp_path / "p.joblib", **attributes | {"scaler": StandardScaler().fit(x)})
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


def test_two_classes(tmp_path: Path) -> None:
    x = features()
    attributes, expected = published.fit(x, classes(count=2))
    published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=("no", "yes")).probe, x, expected)


def test_two_classes_fitted_as_multinomial(tmp_path: Path) -> None:
    """As scikit-learn before 1.8 could: the softmax of (-z, z)."""
    x = features()
    attributes, expected = published.fit(x, classes(count=2))
    attributes["model"].multi_class = "multinomial"
    published.dump(tmp_path / "p.joblib", **attributes)
    odds = (expected[:, 1] / expected[:, 0]) ** 2
    same(
        import_probe(tmp_path / "p.joblib", labels=("no", "yes")).probe, x,
        np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1),
    )  # fmt: skip


@pytest.mark.parametrize(
    "how", [{"multi_class": "ovr"}, {"multi_class": "deprecated", "solver": "liblinear"}]
)
def test_one_vs_rest_within_logistic_regression(tmp_path: Path, how: dict[str, str]) -> None:
    """As scikit-learn before 1.8 could: sigmoids divided by their sum."""
    x = features()
    attributes, _ = published.fit(x, classes())
    model = attributes["model"]
    model.__dict__ |= how
    published.dump(tmp_path / "p.joblib", **attributes)
    sigmoids = 1 / (1 + np.exp(-(x @ model.coef_.T + model.intercept_)))
    same(
        import_probe(tmp_path / "p.joblib", labels=ABC).probe, x,
        sigmoids / sigmoids.sum(axis=1, keepdims=True),
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 3])
def test_one_vs_rest_classifier_of_classes(tmp_path: Path, count: int) -> None:
    x, y = features(), classes(count=count)
    model = OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(x, y)
    published.dump(tmp_path / "p.joblib", scale=False, scaler=None, model=model, multilabel=False)
    same(import_probe(tmp_path / "p.joblib", labels=ABC[:count]).probe, x, model.predict_proba(x))


def test_labels_that_training_never_or_always_had(tmp_path: Path) -> None:
    x = features()
    y = np.stack([classes(count=2), np.zeros(120, int), np.ones(120, int)], axis=1)
    attributes, expected = published.fit(x, y)
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    same(found, x, expected)
    assert found.predict(x)[:, 1].max() < 1e-6
    assert found.predict(x)[:, 2].min() > 1 - 1e-6


def test_a_bare_scikit_learn_classifier(tmp_path: Path) -> None:
    x = features()
    attributes, expected = published.fit(x, classes())
    joblib.dump(attributes["model"], tmp_path / "p.joblib")
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coef_": None}, "coef_ is NoneType"),
        ({"coef_": np.zeros((2, 144))}, r"intercept_ .* shape \(3,\); expected \(2,\)"),
        ({"coef_": np.zeros((4, 144)), "intercept_": np.zeros(4)}, "4 rows of weights for 3 classes"),
        ({"coef_": np.full((3, 144), np.nan)}, "weights has values that are not finite"),
        ({"coef_": np.array([["x"] * 144] * 3)}, "expected an array of numbers"),
        ({"classes_": np.array([1, 2, 3])}, "not the numbers 0 to 2"),
        ({"classes_": 3}, "are no list"),
    ],
)
def test_refuses_a_classifier_whose_parts_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    attributes, _ = published.fit(features(), classes())
    attributes["model"].__dict__ |= changes
    published.dump(tmp_path / "p.joblib", **attributes)
    with pytest.raises(ImportProbeError, match=message):
        import_probe(tmp_path / "p.joblib", labels=ABC)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"model": LogisticRegression()}, "its LogisticRegression has no classes_: not fitted"),
        ({"model": OneVsRestClassifier(LogisticRegression())}, "has no label_binarizer_: not fitted"),
        ({"model": StandardScaler()}, "its classifier is StandardScaler; expected LogisticRegression or"),
        ({"model": None}, "its classifier is NoneType"),
        ({}, "its LogisticRegressionModel has no model"),
    ],
)
def test_refuses_other_models(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    published.dump(tmp_path / "p.joblib", **attributes)
    with pytest.raises(ImportProbeError, match=message):
        import_probe(tmp_path / "p.joblib", labels=ABC)


def test_refuses_a_scaler_that_is_missing_or_of_another_width(tmp_path: Path) -> None:
    attributes, _ = published.fit(features(), classes())
    for scaler, message in (
        (None, "scaler is NoneType; expected StandardScaler"),
        (StandardScaler(), "StandardScaler has no mean_: not fitted"),
        (StandardScaler().fit(features(dim=5)), r"mean_ .* shape \(5,\); expected \(144,\)"),
    ):
        published.dump(tmp_path / "p.joblib", **attributes | {"scale": True, "scaler": scaler})
        with pytest.raises(ImportProbeError, match=message):
            import_probe(tmp_path / "p.joblib", labels=ABC)
