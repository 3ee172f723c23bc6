"""Linear probe: a linear classifier on frozen embeddings, one safetensors file.

Tensors: `weights` (classes, dim), `bias` (classes,) and, only where the probe is calibrated, `scale` and
`shift` (classes,), all float32, or float64 where an imported probe needs it. The header says the rest, as
JSON: task, pooling, labels, threshold, metrics. Standardisation of the features is folded into weights and
bias when a probe is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.outputs import POOLINGS, Pooling

Task = Literal["multi-label", "multi-class"]
FloatArray = npt.NDArray[np.float32]
Parameters = npt.NDArray[np.float32] | npt.NDArray[np.float64]

TASKS: tuple[Task, ...] = get_args(Task)
FORMAT = 1
HEADER_KEY = "landmoe_probe"
MAX_BYTES = 256 << 20  # 1,000 classes on the 15,120 values of size S's tokens take 60 MB
MAX_CLASSES = 10_000


class ProbeError(ValueError):
    """A probe that cannot be used, or embeddings that do not fit it: what came and what was expected."""


@dataclass(frozen=True)
class LinearProbe:
    """Class probabilities from an embedding.

    `pooling` names the embedding that it reads; for `tokens` they are flattened row by row, tokens x values.
    `threshold` is the probability from which a label counts as selected (multi-label only). `scale` and
    `shift` calibrate the logits, class by class: sigmoid or softmax of scale * logit + shift. `one_vs_rest`
    (multi-class only): the classes' sigmoids divided by their sum, in place of the softmax. `metrics` is free
    JSON: what the probe reached, on what, by which protocol.

    Raises:
        ProbeError: shapes that do not fit each other, values that are not finite, repeated or empty labels.
    """

    task: Task
    pooling: Pooling
    labels: tuple[str, ...]
    weights: Parameters  # (classes, dim)
    bias: Parameters  # (classes,)
    threshold: float = 0.5
    scale: Parameters | None = None  # (classes,)
    shift: Parameters | None = None  # (classes,)
    one_vs_rest: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ProbeError(f"task is {self.task!r}; expected one of {', '.join(TASKS)}")
        if self.pooling not in POOLINGS:
            raise ProbeError(f"pooling is {self.pooling!r}; expected one of {', '.join(POOLINGS)}")
        fewest = 2 if self.task == "multi-class" else 1
        if not fewest <= len(self.labels) <= MAX_CLASSES:
            raise ProbeError(f"{len(self.labels)} labels; expected {fewest} to {MAX_CLASSES}")
        if not all(isinstance(label, str) and label.strip() for label in self.labels):
            raise ProbeError("a label is not a text or is empty; expected names of classes")
        if twice := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise ProbeError(f"labels are given twice: {', '.join(twice)}")
        if isinstance(self.threshold, bool) or not 0 <= self.threshold <= 1:
            raise ProbeError(f"threshold is {self.threshold!r}; expected a probability")
        if self.one_vs_rest is not False and (self.one_vs_rest is not True or self.task != "multi-class"):
            raise ProbeError(
                f"one_vs_rest is {self.one_vs_rest!r}; expected true or false, for multi-class only"
            )
        if (self.scale is None) != (self.shift is None):
            raise ProbeError("a calibrated probe needs both scale and shift; one of them is missing")
        classes = len(self.labels)
        if self.weights.ndim != 2 or len(self.weights) != classes or not self.weights.shape[1]:
            raise ProbeError(f"weights of shape {self.weights.shape}; expected ({classes}, dim)")
        for name in ("weights", "bias", "scale", "shift"):
            array = getattr(self, name)
            if array is None:
                continue
            if name != "weights" and array.shape != (classes,):
                raise ProbeError(f"{name} of shape {array.shape}; expected ({classes},)")
            if array.dtype not in (np.float32, np.float64):
                raise ProbeError(f"{name} is {array.dtype}; expected float32 or float64")
            if not np.isfinite(array).all():
                raise ProbeError(f"{name} has values that are not finite")

    @property
    def dim(self) -> int:
        """Values of the embedding that it reads."""
        return int(self.weights.shape[1])

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities are calibrated."""
        return self.scale is not None

    def logits(self, embeddings: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Embeddings (N, dim), or (N, tokens, m) for `tokens` → logits float64 (N, classes), calibrated.

        Raises:
            ProbeError: embeddings of another size.
        """
        flat = embeddings.reshape(len(embeddings), math.prod(embeddings.shape[1:]))
        if embeddings.ndim < 2 or flat.shape[1] != self.dim:
            raise ProbeError(
                f"embeddings of shape {embeddings.shape} for a probe on {self.pooling}; "
                f"expected {self.dim} values each"
            )
        # float64: a row's result must not depend on how many rows came with it. einsum without optimize
        # reduces each row on its own, where a matrix product picks its order by the number of rows.
        values: npt.NDArray[np.float64] = np.einsum(
            "nd,cd->nc", flat.astype(np.float64), self.weights.astype(np.float64)
        )
        values += self.bias
        if self.scale is not None and self.shift is not None:
            values = values * self.scale + self.shift
        return values

    def predict(self, embeddings: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Probabilities float32 (N, classes): independent for multi-label, with sum 1 for multi-class.

        Raises:
            ProbeError: as `logits`.
        """
        logits = self.logits(embeddings)
        if self.task == "multi-label":
            return sigmoid(logits).astype(np.float32)
        # With log sigmoid(x) = -log(1 + exp(-x)), the softmax divides the sigmoids by their sum.
        return softmax(-np.logaddexp(0.0, -logits) if self.one_vs_rest else logits).astype(np.float32)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Softmax over the last axis without overflow."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def folded(
    weights: npt.ArrayLike,
    bias: npt.ArrayLike,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Weights (classes, dim) and bias on standardised features → the same classifier on raw features."""
    w = np.asarray(weights, np.float64) / np.asarray(std, np.float64)
    b = np.asarray(bias, np.float64) - w @ np.asarray(mean, np.float64)
    return w.astype(np.float32), b.astype(np.float32)


def encode(probe: LinearProbe) -> bytes:
    """The probe as the bytes of a safetensors file; the same probe gives the same bytes.

    Raises:
        ProbeError: metrics that are no JSON.
    """
    header = {
        "format": FORMAT,
        "task": probe.task,
        "pooling": probe.pooling,
        "labels": list(probe.labels),
        "threshold": probe.threshold,
        "metrics": probe.metrics,
    }
    if probe.one_vs_rest:
        header["one_vs_rest"] = True
    tensors: dict[str, Parameters] = {"weights": probe.weights, "bias": probe.bias}
    if probe.scale is not None and probe.shift is not None:
        tensors |= {"scale": probe.scale, "shift": probe.shift}
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ProbeError(f"the probe's metrics cannot be written as JSON: {error}") from error
    return bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, metadata={HEADER_KEY: text}))


def save_probe(path: Path, probe: LinearProbe) -> None:
    """Write `path` at once or not at all."""
    data = encode(probe)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def load_probe(path: Path) -> LinearProbe:
    """Read a probe written by `save_probe`.

    Raises:
        ProbeError: no such file, too large, not a safetensors file, another program's, or damaged.
    """
    if not path.is_file():
        raise ProbeError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ProbeError(f"{path} has {size} bytes; expected at most {MAX_BYTES}")
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
            names = set(file.keys())
            if text is None:
                raise ProbeError(f"{path}: no '{HEADER_KEY}' header, so not a landmoe probe")
            if names not in ({"weights", "bias"}, {"weights", "bias", "scale", "shift"}):
                raise ProbeError(
                    f"{path} holds {', '.join(sorted(names)) or 'nothing'}; "
                    "expected weights and bias, with scale and shift or without"
                )
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ProbeError(f"{path}: not a readable safetensors file ({error})") from error
    try:
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise ProbeError(f"{path}: probe format {header['format']!r}, this release reads {FORMAT}")
        return _from_header(header, tensors)
    except ProbeError as error:
        raise ProbeError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ProbeError(f"{path}: the header cannot be read ({error!r})") from error


def _from_header(header: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> LinearProbe:
    labels: Sequence[str] = header["labels"]
    if not isinstance(labels, list) or not isinstance(header["metrics"], dict):
        raise ProbeError("labels are not a list, or metrics not an object")
    return LinearProbe(
        task=header["task"],
        pooling=header["pooling"],
        labels=tuple(labels),
        weights=tensors["weights"],
        bias=tensors["bias"],
        threshold=header["threshold"],
        scale=tensors.get("scale"),
        shift=tensors.get("shift"),
        one_vs_rest=header.get("one_vs_rest", False),
        metrics=header["metrics"],
    )
