"""Linear classifiers of scikit-learn, as records of their attributes, → weights and bias.

The probabilities are those of scikit-learn 1.6's `LogisticRegression.predict_proba` and
`OneVsRestClassifier.predict_proba`; standardisation is folded into weights and bias. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.probe import Task
from training.pickle_values import Instance

# Logit of a class that the training labels had always or never: its probability is 1 or 0 within 1e-17.
CERTAIN = 40.0

Floats = npt.NDArray[np.float64]


class ClassifierError(ValueError):
    """A classifier that is not linear, not fitted, or whose parts do not fit each other."""


@dataclass(frozen=True)
class Linear:
    """A linear classifier on raw features; the fields mean what they mean in `LinearProbe`."""

    task: Task
    classes: npt.NDArray[Any]  # (classes,) as the classifier names them: integers or texts
    weights: Floats  # (classes, dim)
    bias: Floats  # (classes,)
    one_vs_rest: bool = False


def linear(model: Any) -> Linear:
    """A LogisticRegression (multi-class) or a OneVsRestClassifier of them (multi-label or multi-class).

    Raises:
        ClassifierError: another class, not fitted, or parts that do not fit each other.
    """
    if _is(model, "LogisticRegression"):
        return _logistic(model)
    if _is(model, "OneVsRestClassifier"):
        return _one_vs_rest(model)
    raise ClassifierError(
        f"its classifier is {_described(model)}; expected LogisticRegression or OneVsRestClassifier"
    )


def unscaled(classifier: Linear, scaler: Any) -> Linear:
    """A classifier on features that a StandardScaler has standardised → the same on raw features.

    Raises:
        ClassifierError: another class of scaler, not fitted, or of another width.
    """
    if not _is(scaler, "StandardScaler"):
        raise ClassifierError(f"its scaler is {_described(scaler)}; expected StandardScaler")
    dim = classifier.weights.shape[1]
    centred, scaled = (scaler.attributes.get(name, True) for name in ("with_mean", "with_std"))
    mean = _floats(scaler, "mean_", (dim,)) if centred else np.zeros(dim)
    std = _floats(scaler, "scale_", (dim,)) if scaled else np.ones(dim)
    if not std.all():
        raise ClassifierError("its StandardScaler divides by zero")
    with np.errstate(over="ignore", invalid="ignore"):  # LinearProbe refuses what is not finite
        weights = classifier.weights / std
        return replace(classifier, weights=weights, bias=classifier.bias - weights @ mean)


def attribute(owner: Instance, name: str) -> Any:
    """An attribute; raises ClassifierError where it is missing."""
    if name not in owner.attributes:
        raise ClassifierError(f"its {owner.name} has no {name}: not fitted, or of another release")
    return owner.attributes[name]


def _logistic(model: Instance) -> Linear:
    classes = _classes(model)
    weights, bias = _rows(model)
    if len(classes) == 2:
        return _two_classes(classes, weights, bias, other=-1.0 if _is_multinomial(model) else 0.0)
    if len(weights) != len(classes):
        raise ClassifierError(f"it has {len(weights)} rows of weights for {len(classes)} classes")
    kind, solver = model.attributes.get("multi_class", "auto"), model.attributes.get("solver")
    one_vs_rest = kind == "ovr" or (kind in ("auto", "deprecated") and solver == "liblinear")
    return Linear("multi-class", classes, weights, bias, one_vs_rest)


def _one_vs_rest(model: Instance) -> Linear:
    binarizer, estimators = attribute(model, "label_binarizer_"), attribute(model, "estimators_")
    if not _is(binarizer, "LabelBinarizer") or not isinstance(estimators, list) or not estimators:
        raise ClassifierError("its OneVsRestClassifier has no LabelBinarizer or no list of estimators")
    classes = _classes(binarizer)
    rows = [_positive_row(estimator) for estimator in estimators]
    widths = {len(row) for row, _ in rows}
    if len(widths) != 1:
        raise ClassifierError(f"its estimators read {sorted(widths)} inputs; expected one number")
    weights, bias = np.stack([row for row, _ in rows]), np.array([bias for _, bias in rows])
    target = binarizer.attributes.get("y_type_")
    if target == "binary" and len(classes) == 2:
        return _two_classes(classes, weights, bias)
    if len(rows) != len(classes):
        raise ClassifierError(f"it has {len(rows)} estimators for {len(classes)} classes")
    if target == "multilabel-indicator":
        return Linear("multi-label", classes, weights, bias)
    if target == "multiclass":
        return Linear("multi-class", classes, weights, bias, one_vs_rest=True)
    raise ClassifierError("its LabelBinarizer was fitted on something else than classes or sets of labels")


def _positive_row(estimator: Any) -> tuple[Floats, float]:
    """Weights and bias of the logit that a one-vs-rest estimator gives its class."""
    if _is(estimator, "_ConstantPredictor"):
        (always,) = _floats(estimator, "y_", (1,))
        inputs = attribute(estimator, "n_features_in_")
        if always not in (0, 1) or type(inputs) is not int or not 0 < inputs <= 1 << 24:
            raise ClassifierError("its _ConstantPredictor predicts neither 0 nor 1, or reads no features")
        return np.zeros(inputs), CERTAIN if always else -CERTAIN
    if not _is(estimator, "LogisticRegression"):
        raise ClassifierError(
            f"its OneVsRestClassifier is made of {_described(estimator)}; expected LogisticRegression"
        )
    weights, bias = _rows(estimator)
    if len(weights) != 1:
        raise ClassifierError(f"its one-vs-rest estimator has {len(weights)} rows of weights; expected 1")
    factor = 2.0 if _is_multinomial(estimator) else 1.0
    return factor * weights[0], float(factor * bias[0])


def _two_classes(classes: npt.NDArray[Any], weights: Floats, bias: Floats, other: float = 0.0) -> Linear:
    """One row of logits z → softmax of (other * z, z): sigmoid(z) for the second class where other is 0."""
    if len(weights) != 1:
        raise ClassifierError(f"it has {len(weights)} rows of weights for 2 classes; expected 1")
    return Linear("multi-class", classes, np.r_[other * weights, weights], np.r_[other * bias, bias])


def _is_multinomial(model: Instance) -> bool:
    """Whether two classes were fitted as a softmax of (-z, z), and not as the sigmoid of z."""
    return model.attributes.get("multi_class") == "multinomial"


def _rows(model: Instance) -> tuple[Floats, Floats]:
    coef = attribute(model, "coef_")
    if not isinstance(coef, np.ndarray) or coef.ndim != 2:
        raise ClassifierError(f"its coef_ is {_described(coef)}; expected an array (classes, inputs)")
    return _floats(model, "coef_", coef.shape), _floats(model, "intercept_", (len(coef),))


def _classes(owner: Instance) -> npt.NDArray[Any]:
    classes = attribute(owner, "classes_")
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        raise ClassifierError(f"the classes of its {owner.name} are no list")
    return classes


def _floats(owner: Instance, name: str, shape: tuple[int, ...]) -> Floats:
    value = attribute(owner, name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ClassifierError(
            f"{name} of its {owner.name} is {_described(value)}; expected an array of numbers"
        )
    if value.shape != shape:
        raise ClassifierError(f"{name} of its {owner.name} has the shape {value.shape}; expected {shape}")
    return value.astype(np.float64)


def _is(value: Any, name: str) -> bool:
    return isinstance(value, Instance) and value.name == name


def _described(value: Any) -> str:
    """A class; never contents, which could be of any size."""
    return value.name if isinstance(value, Instance) else type(value).__name__
