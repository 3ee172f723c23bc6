"""What a request wants of each tile: its embedding, or a probe's predictions from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.outputs import Pooling, shapes
from model.probe import LinearProbe
from service.engine import Engine
from service.errors import RequestError
from service.formats import Head, l2_normalized
from service.parameters import ClassifyOptions, EmbedOptions

DEFAULT_TOP_K = 5  # of a multi-class probe


class Product(Protocol):
    """Makes the part of an answer that depends on the network."""

    @property
    def pooling(self) -> Pooling:
        """The network's output that it is made from."""

    @property
    def head(self) -> Head:
        """What the answer says once."""

    def fields(self, values: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """The items' fields from raw embeddings, float32 (dim,) or (105, dim) each."""


class Probes:
    """The probes of a bundle, read once.

    Raises:
        BundleError: one of them cannot be used.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle_name = bundle.name
        self._probes = {name: bundle.probe(name) for name in bundle.probe_names}

    def choose(self, name: str | None) -> tuple[str, LinearProbe]:
        """A probe by its name; the first if None.

        Raises:
            RequestError: there is none of this name, or none at all.
        """
        if not self._probes:
            raise RequestError(
                "unknown-probe",
                f"the bundle {self._bundle_name} has no probes, so it cannot classify; expected a bundle "
                "with probes (GET /model lists them). POST /embed works without",
            )
        chosen = next(iter(self._probes)) if name is None else name
        if chosen not in self._probes:
            raise RequestError(
                "unknown-probe", f"no probe is named {chosen[:100]!r}; expected {', '.join(self._probes)}"
            )
        return chosen, self._probes[chosen]

    def described(self) -> list[dict[str, Any]]:
        """Each probe as GET /model lists it."""
        return [
            {
                "name": name,
                "task": probe.task,
                "pooling": probe.pooling,
                "labels": list(probe.labels),
                "threshold": probe.threshold if probe.task == "multi-label" else None,
                "calibrated": probe.calibrated,
                "metrics": probe.metrics,
            }
            for name, probe in self._probes.items()
        ]


class Embeddings:
    """Embeddings as they are, or with unit L2 norm."""

    def __init__(self, engine: Engine, options: EmbedOptions) -> None:
        self.pooling = options.pooling
        self._normalize = options.normalize
        shape = shapes(engine.bundle.config)[self.pooling]
        self.head = Head(
            {"model": reference(engine), "pooling": self.pooling, "dim": shape[-1]},
            shape,
            normalized=options.normalize,
            as_nan=options.on_error == "nan",
        )

    def fields(self, values: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """`embedding`."""
        return [{"embedding": l2_normalized(v) if self._normalize else v} for v in values]


class Predictions:
    """A probe's predictions.

    Raises:
        RequestError: no such probe, another pooling than its own, a threshold for a multi-class one.
    """

    def __init__(self, engine: Engine, probes: Probes, options: ClassifyOptions) -> None:
        self._name, self._probe = name, probe = probes.choose(options.probe)
        self.pooling = probe.pooling
        if options.pooling not in (None, probe.pooling):
            raise RequestError(
                "bad-parameter",
                f"pooling is {options.pooling!r}; the probe {name} reads {probe.pooling!r}: leave it out",
            )
        if options.threshold is not None and probe.task == "multi-class":
            raise RequestError(
                "bad-parameter",
                f"threshold is {options.threshold}; the probe {name} is multi-class, its probabilities have "
                "the sum 1: leave threshold out",
            )
        classes = len(probe.labels)
        self._top_k = options.top_k or (DEFAULT_TOP_K if probe.task == "multi-class" else classes)
        self._threshold = probe.threshold if options.threshold is None else options.threshold
        fields: dict[str, Any] = {"model": reference(engine), "pooling": probe.pooling, "dim": classes}
        fields |= {"probe": name, "task": probe.task}
        if probe.task == "multi-label":
            fields["threshold"] = self._threshold
        self.head = Head(fields, (classes,), probe.labels, as_nan=options.on_error == "nan")

    def fields(self, values: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """`probe`, `predictions`, `selected`; and `probabilities` in the order of the labels."""
        if not values:
            return []
        return [self._fields(row) for row in self._probe.predict(np.stack(values))]

    def _fields(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        labels = self._probe.labels
        order = np.argsort(-probabilities, kind="stable")
        if self._probe.task == "multi-label":
            selected = [labels[i] for i in order if probabilities[i] >= self._threshold]
        else:
            selected = [labels[order[0]]]
        top = [{"label": labels[i], "probability": probabilities[i]} for i in order[: self._top_k]]
        return {
            "probe": self._name,
            "predictions": top,
            "selected": selected,
            "probabilities": probabilities,
        }


def reference(engine: Engine) -> dict[str, str]:
    """Which model gives an answer, and how exactly: name, version, digest, precision."""
    bundle = engine.bundle
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "precision": engine.precision,
    }
