"""What the pickle of a linear probe may name, and what stands for it here; nothing of it is imported.

An object of one of `CLASSES` becomes an `Instance`, a record with the name of its class and its attributes;
the few functions of `CALLS` are interpreted by pickle_machine.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_TEXTS, MAX_TEXT = 10_000, 1_000  # class names of a probe, characters of one
WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
NDARRAY = "numpy.ndarray"
CLASSES = frozenset(
    {
        "classification_models.logistic_regression.LogisticRegressionModel",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.multiclass.OneVsRestClassifier",
        "sklearn.multiclass._ConstantPredictor",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._label.LabelBinarizer",
        "sklearn.preprocessing._label.LabelEncoder",
        WRAPPER,
    }
)
CALLS = {
    "numpy.dtype": "dtype",
    "numpy._core.multiarray.scalar": "scalar",  # numpy 2
    "numpy.core.multiarray.scalar": "scalar",  # numpy 1
    "numpy._core.multiarray._reconstruct": "array",
    "numpy.core.multiarray._reconstruct": "array",
    "_codecs.encode": "bytes",  # how bytes are written in pickles of protocol 2, which older joblib nests
}
NAMES = CLASSES | CALLS.keys() | {NDARRAY}
DTYPE = re.compile(r"f[248]|[iu][1248]|b1|U\d{1,4}|O8?")


class PickleError(ValueError):
    """A pickle that is damaged, or that does more than build the parts of a linear probe."""


@dataclass
class Instance:
    """What stands for an object: the name of its class, and its attributes."""

    kind: str  # with its module
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class, without its module."""
        return self.kind.rpartition(".")[2]


@dataclass(frozen=True)
class Name:
    """A class or function of the allow-list."""

    path: str


@dataclass
class DType:
    """A numpy dtype; its byte order comes in a second instruction."""

    code: str
    order: str = "="

    @property
    def holds_objects(self) -> bool:
        """Whether its values are a pickle of their own."""
        return self.code.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        """The dtype itself."""
        return np.dtype(self.order + self.code)


def are_names(texts: list[Any]) -> bool:
    """Whether these can be names of classes; asked before numpy makes them all as wide as the longest."""
    return len(texts) <= MAX_TEXTS and all(type(text) is str and len(text) <= MAX_TEXT for text in texts)


def described(value: Any) -> str:
    """A type or a name of the allow-list; never contents, which could be of any size."""
    return value.path if isinstance(value, Name) else getattr(value, "kind", type(value).__name__)
