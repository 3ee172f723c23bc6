"""Make joblib files as the published ones are: a class of a module that exists only while it is pickled."""

from __future__ import annotations

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

MODULE = "classification_models.logistic_regression"


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
