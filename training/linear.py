"""Linear classifiers and regressions on frozen features: the published protocol, and a tuned one.

Both are rotated before they are fitted: with fewer tiles than features, the rows of the training set span a
small subspace, and an L2-penalised linear model lies in it. A rotation onto that subspace changes neither
distances nor the penalty, so the result is the same at a hundredth of the cost.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from model.probe import sigmoid, softmax
from training import metrics

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # on standardised features
ALPHA_GRID = tuple(10.0**e for e in range(-1, 6))
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
INNER_FOLDS = 3
MAX_ITERATIONS = 100  # of L-BFGS


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation of every feature; features that do not vary are left at 0."""

    mean: FloatArray
    std: FloatArray

    @classmethod
    def of(cls, x: FloatArray) -> Standardiser:
        """Those of the rows of x (N, D)."""
        std = x.std(axis=0)
        return cls(x.mean(axis=0), np.where(std > 1e-9 * (np.abs(x).max(axis=0) + 1e-30), std, np.inf))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Standardised features."""
        result: FloatArray = (x - self.mean) / self.std
        return result


def rotation(x: FloatArray) -> FloatArray:
    """Orthonormal basis (D, R) of the rows of x (N, D): x @ basis has orthogonal columns, R = rank of x."""
    small = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if small else x.T @ x)
    keep = values > values[-1] * 1e-12
    basis: FloatArray = x.T @ (vectors[:, keep] / np.sqrt(values[keep])) if small else vectors[:, keep]
    return basis


def published(x: FloatArray, y: BoolArray, test: FloatArray, *, multi_label: bool) -> FloatArray:
    """Probabilities (M, C) by the published protocol: unscaled, C = 1, SAG of at most 1,000 passes, seed 0.

    Multi-label is one-vs-rest. A class that all or no training tiles have is predicted as such, as
    scikit-learn's OneVsRestClassifier does.
    """
    if x.shape[1] > len(x):
        basis = rotation(x)
        x, test = x @ basis, test @ basis
    out = np.zeros((len(test), y.shape[1]))
    with warnings.catch_warnings():
        # On unscaled features 1,000 passes are often too few; the protocol stops there all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if not multi_label:
            if y.all(axis=0).any():  # one class only, which scikit-learn refuses to fit
                out[:] = y[0]
                return out
            fitted = _sag().fit(x, y.argmax(axis=1))
            out[:, fitted.classes_] = fitted.predict_proba(test)
            return out
        for c in range(y.shape[1]):
            out[:, c] = (
                _sag().fit(x, y[:, c]).predict_proba(test)[:, 1] if 0 < y[:, c].sum() < len(y) else y[0, c]
            )
    return out


def _sag() -> LogisticRegression:
    return LogisticRegression(solver="sag", max_iter=1000, C=1.0, random_state=0)


def logistic(
    x: FloatArray, y: BoolArray, c: float, *, multi_label: bool, start: FloatArray | None = None
) -> FloatArray:
    """Weights (D + 1, C), the bias last, that minimise C * loss + |w|^2 / 2 (scikit-learn's objective).

    All classes are fitted in one L-BFGS: for multi-label the objective is a sum of independent ones. A class
    without positives (or negatives) gets a bias by its smoothed frequency and no weights. Columns of x that
    are orthogonal (`rotation`) make it fast: each is scaled by its bound of the curvature (Böhning 1992).
    """
    rows, dims = x.shape
    classes = y.shape[1]
    scale = 1 / np.sqrt(np.append(1 + c / 4 * (x**2).sum(axis=0), c / 4 * rows))[:, None]
    design = np.concatenate([x, np.ones((rows, 1))], axis=1) * scale.T
    penalty = scale**2
    penalty[-1] = 0  # the bias is free
    target = y.astype(float)
    rate = (y.sum(axis=0) + 0.5) / (rows + 1)
    fixed = (y.all(axis=0) | ~y.any(axis=0)) if multi_label else np.zeros(classes, bool)
    if start is None:
        start = np.zeros((dims + 1, classes))
        start[-1] = np.log(rate / (1 - rate)) if multi_label else np.log(rate)

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        w = flat.reshape(dims + 1, classes)
        z = design @ w
        if multi_label:
            loss = float((np.logaddexp(0, z) - target * z).sum())
            gradient = design.T @ (sigmoid(z) - target)
        else:
            top = z.max(axis=1, keepdims=True)
            normaliser = top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))
            loss = float((normaliser - (z * target).sum(axis=1, keepdims=True)).sum())
            gradient = design.T @ (np.exp(z - normaliser) - target)
        gradient = c * gradient + penalty * w
        gradient[:, fixed] = 0
        return c * loss + 0.5 * float((penalty * w**2).sum()), gradient.ravel()

    options = {"maxiter": MAX_ITERATIONS, "ftol": 1e-7, "gtol": 1e-6}
    found = minimize(objective, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    result: FloatArray = found.x.reshape(dims + 1, classes) * scale
    return result


def probabilities(x: FloatArray, weights: FloatArray, *, multi_label: bool) -> FloatArray:
    """Probabilities (N, C) of `logistic` weights."""
    z = x @ weights[:-1] + weights[-1]
    return sigmoid(z) if multi_label else softmax(z)


@dataclass(frozen=True)
class Tuned:
    """A classifier on raw features with what cross-validation chose for it."""

    weights: FloatArray  # (D, C), on standardised features
    bias: FloatArray  # (C,)
    standardiser: Standardiser
    c: float
    threshold: float
    out_of_fold: FloatArray  # (N, C) logits of the training tiles from the inner folds, at the chosen C
    multi_label: bool

    def probabilities(self, x: FloatArray) -> FloatArray:
        """(N, D) → (N, C)."""
        z = self.standardiser(x) @ self.weights + self.bias
        return sigmoid(z) if self.multi_label else softmax(z)


def tuned(
    x: FloatArray, y: BoolArray, places: NDArray[np.generic], *, multi_label: bool, seed: int = 0
) -> Tuned:
    """Standardised features; C by log-loss and threshold by micro F1, both over folds of whole places."""
    standardiser = Standardiser.of(x)
    z = standardiser(x)
    basis = rotation(z)
    small = z @ basis
    folds = place_folds(places, INNER_FOLDS, seed)
    logits = np.zeros((len(C_GRID), *y.shape))
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        w = None
        # From strong to weak regularisation, each from the last one's solution.
        for i, c in enumerate(C_GRID):
            w = logistic(small[inside], y[inside], c, multi_label=multi_label, start=w)
            logits[i, outside] = small[outside] @ w[:-1] + w[-1]
    link = sigmoid if multi_label else softmax
    losses = [metrics.log_loss(y, link(z), multi_label=multi_label) for z in logits]
    best = int(np.argmin(losses))
    weights = logistic(small, y, C_GRID[best], multi_label=multi_label)
    body = basis @ weights[:-1]
    threshold = best_threshold(y, link(logits[best])) if multi_label else 0.5
    return Tuned(body, weights[-1], standardiser, C_GRID[best], threshold, logits[best], multi_label)


def best_threshold(truth: BoolArray, probabilities: FloatArray) -> float:
    """The threshold with the best micro F1 on out-of-fold probabilities; the middle one of equals."""
    scores = [float(metrics.f1(truth.ravel(), (probabilities >= t).ravel())[0]) for t in THRESHOLDS]
    best = (
        np.flatnonzero(np.asarray(scores) == np.nanmax(scores)) if np.isfinite(scores).any() else np.arange(0)
    )
    return float(THRESHOLDS[best[len(best) // 2]]) if len(best) else 0.5


def ridge(
    x: FloatArray, y: FloatArray, test: FloatArray, groups: NDArray[np.generic], seed: int = 0
) -> FloatArray:
    """Ridge regression on standardised features, the penalty by folds of groups: (M, T) predictions."""
    standardiser = Standardiser.of(x)
    z, z_test = standardiser(x), standardiser(test)
    basis = rotation(z)
    z, z_test = z @ basis, z_test @ basis
    folds = place_folds(groups, INNER_FOLDS, seed)
    errors = np.zeros(len(ALPHA_GRID))
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        predicted = _ridge_path(z[inside], y[inside], z[outside])
        errors += ((predicted - y[outside]) ** 2).sum(axis=(1, 2))
    best: FloatArray = _ridge_path(z, y, z_test)[int(errors.argmin())]
    return best


def _ridge_path(x: FloatArray, y: FloatArray, test: FloatArray) -> FloatArray:
    """Predictions (A, M, T) for every penalty of the grid, from one decomposition."""
    mean, offset = x.mean(axis=0), y.mean(axis=0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    projected, seen = u.T @ (y - offset), (test - mean) @ vt.T
    paths = [seen @ ((s / (s**2 + a))[:, None] * projected) + offset for a in ALPHA_GRID]
    result: FloatArray = np.stack(paths)
    return result


def place_folds(places: NDArray[np.generic], count: int, seed: int) -> IntArray:
    """Fold number int64 (N,) of every tile; a place is never in two folds.

    Raises:
        ValueError: fewer than two places.
    """
    number = min(count, len(np.unique(places)))
    if number < 2:
        raise ValueError(f"{number} place; expected at least 2 to hold some out")
    folds = np.zeros(len(places), np.int64)
    splitter = GroupKFold(number, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(places, groups=places)):
        folds[rows] = fold
    return folds
