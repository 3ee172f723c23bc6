"""Joblib files as the published ones are, and data for them.

Their class is of a module that exists only while it is pickled.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from model.probe import LinearProbe

MODULE = "classification_models.logistic_regression"
ABC = ("a", "b", "c")


def features(n: int = 120, dim: int = 144, dtype: Any = np.float64, seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).normal(0.3, 1.5, size=(n, dim)).astype(dtype)


def classes(n: int = 120, count: int = 3, seed: int = 1) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).permutation(np.arange(n) % count)


def same(probe: LinearProbe, x: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Checks that a probe gives these probabilities."""
    np.testing.assert_allclose(probe.predict(x), expected, atol=1e-6, rtol=0)


@contextmanager
def published_class() -> Iterator[type[Any]]:
    """The class under the published module path; afterwards nothing of that name can be imported."""
    package, module = ModuleType(MODULE.partition(".")[0]), ModuleType(MODULE)
    cls = type("LogisticRegressionModel", (), {"__module__": MODULE})
    module.LogisticRegressionModel = cls  # type: ignore[attr-defined]
    sys.modules |= {package.__name__: package, MODULE: module}
    try:
        yield cls
    finally:
        del sys.modules[package.__name__], sys.modules[MODULE]


def dump(path: Path, compress: Any = 0, protocol: int | None = None, **attributes: Any) -> None:
    """Write a LogisticRegressionModel with these attributes."""
    with published_class() as cls:
        instance = cls()
        instance.__dict__ |= attributes
        joblib.dump(instance, path, compress=compress, protocol=protocol)


def fit(
    x: npt.NDArray[Any], y: npt.NDArray[Any], *, scale: bool = False, **options: Any
) -> tuple[dict[str, Any], npt.NDArray[Any]]:
    """The attributes of a fitted model, and the probabilities that scikit-learn gives for `x`."""
    scaler = StandardScaler().fit(x) if scale else None
    features = x if scaler is None else scaler.transform(x)
    model: Any = LogisticRegression(max_iter=500, random_state=0, **options)
    if y.ndim == 2:
        model = OneVsRestClassifier(model)
    with warnings.catch_warnings():
        # Few iterations are enough here; a label that is always there is one of the cases.
        warnings.simplefilter("ignore")
        model.fit(features, y)
    attributes = {"scale": scale, "scaler": scaler, "model": model, "multilabel": y.ndim == 2, "seed": 0}
    return attributes, np.asarray(model.predict_proba(features), np.float64)


def dump_weights(folder: Path, facts: Any = None, dim: int = 144, name: str = "p") -> Path:
    """Write a model of random weights for three classes, and what describes it, as JSON or as it is."""
    rows = np.random.default_rng(0).normal(size=(3, dim))
    model = LogisticRegression()
    model.__dict__ |= {"coef_": rows, "intercept_": np.zeros(3), "classes_": np.arange(3)}
    path = folder / f"{name}.joblib"
    dump(path, scale=False, scaler=None, model=model, multilabel=False)
    if facts is not None:
        path.with_suffix(".json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return path
