"""Import of published linear probes: joblib pickle and JSON → LinearProbe.

The pickled object has the attributes `scale` (bool), `scaler` (StandardScaler) and `model`, a
LogisticRegression (multi-class) or a OneVsRestClassifier (multi-label). A JSON file beside it names
`feature_slice`, the part of the flattened tokens that it reads. Bare scikit-learn classifiers come in too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.config import NUM_METADATA_TOKENS, SIZES
from model.labels import BIGEARTHNET_19, EUROSAT_10
from model.outputs import Pooling
from model.probe import LinearProbe, ProbeError
from training.joblib_file import JoblibError, read
from training.pickle_values import Instance
from training.sklearn_linear import ClassifierError, Linear, attribute, linear, unscaled

LABELS = {"ben19": BIGEARTHNET_19, "eurosat10": EUROSAT_10}
MAX_TEXT_BYTES = 1 << 20  # of a description or a list of labels

_SLICE = re.compile(r"(\d{1,9}):(\d{1,9})")


class ImportProbeError(ValueError):
    """A file that is not a published probe, or that leaves open what it reads or predicts."""


@dataclass(frozen=True)
class Imported:
    """A probe, and what was assumed to get it, for a person to read."""

    probe: LinearProbe
    notes: tuple[str, ...]


def import_probe(
    path: Path,
    description: Path | None = None,
    pooling: Pooling | None = None,
    labels: tuple[str, ...] | None = None,
) -> Imported:
    """Convert a published probe, without running what is in its pickle.

    Args:
        path: the joblib file.
        description: its JSON file; None for the one beside it with the same name, if there is one.
        pooling: the embedding that it reads; None to tell it from `feature_slice` and the number of inputs.
        labels: names of its classes 0, 1, …; None if the file names them.

    Raises:
        ImportProbeError: unreadable, another class, not fitted; pooling or labels missing or not fitting.
    """
    if description is None and (beside := path.with_suffix(".json")).is_file():
        description = beside
    try:
        facts = _read_description(description) if description else {}
        found = _classifier(read(path))
        inputs = found.weights.shape[1]
        part = _part(facts.get("feature_slice"), inputs)
        chosen = _pooling(inputs, part, pooling)
        probe = LinearProbe(
            task=found.task,
            pooling=chosen,
            labels=_names(found.classes, labels),
            weights=found.weights,
            bias=found.bias,
            one_vs_rest=found.one_vs_rest,
            metrics={"imported_from": path.name} | ({"description": facts} if facts else {}),
        )
    except JoblibError as error:
        raise ImportProbeError(str(error)) from error
    except (ImportProbeError, ClassifierError, ProbeError) as error:
        raise ImportProbeError(f"{path}: {error}") from error
    notes = []
    if pooling is None and description is None and chosen == "mean":
        notes.append(
            f"taken as a probe on the mean of the tokens: it reads {inputs} values and has no JSON file; "
            "if it was fitted on the cls token, give --pooling cls"
        )
    return Imported(probe, tuple(notes))


def read_labels(text: str) -> tuple[str, ...]:
    """`ben19`, `eurosat10`, or a UTF-8 file with the name of a class on each line, in the order 0, 1, ….

    Raises:
        ImportProbeError: neither, or not readable.
    """
    if text in LABELS:
        return LABELS[text]
    lines = _read_text(Path(text), f"labels {text!r}: expected {' or '.join(LABELS)}, or a file").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _classifier(root: Any) -> Linear:
    """The classifier of a published probe, on raw features."""
    if not isinstance(root, Instance) or root.name != "LogisticRegressionModel":
        return linear(root)
    classifier = linear(attribute(root, "model"))
    multilabel, scaler = root.attributes.get("multilabel"), root.attributes.get("scaler")
    if isinstance(multilabel, bool) and multilabel != (classifier.task == "multi-label"):
        raise ImportProbeError(f"its attribute multilabel is {multilabel}, its classifier {classifier.task}")
    if root.attributes.get("scale", scaler is not None):
        return unscaled(classifier, scaler)
    return classifier


def _part(value: Any, inputs: int) -> tuple[int, int] | None:
    """`feature_slice`, "first:end" of the flattened tokens; None if it is absent or empty."""
    if value is None or value == "":
        return None
    match = _SLICE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ImportProbeError('feature_slice in its JSON file is not of the form "first:end"')
    first, end = int(match[1]), int(match[2])
    if end - first != inputs:
        raise ImportProbeError(
            f"feature_slice {value} has {end - first} values, the classifier reads {inputs}"
        )
    return first, end


def _pooling(inputs: int, part: tuple[int, int] | None, given: Pooling | None) -> Pooling:
    widths = {config.embed_dim: config.embed_dim * config.num_tokens for config in SIZES.values()}
    found: Pooling | None = None
    if inputs in widths.values() and part in (None, (0, inputs)):
        found = "tokens"
    elif part is not None:
        if part[0] != NUM_METADATA_TOKENS * inputs:  # cls is the first token after the metadata
            raise ImportProbeError(
                f"feature_slice {part[0]}:{part[1]} is neither the cls token nor all tokens, "
                "and the encoder gives no other part of them"
            )
        found = "cls"
    elif given is None and inputs in widths:
        found = "mean"
    if given is not None and found is not None and given != found:
        raise ImportProbeError(f"--pooling is {given}, but its {inputs} inputs are those of {found}")
    if chosen := given or found:
        return chosen
    raise ImportProbeError(
        f"it reads {inputs} values, which tells no pooling: expected {', '.join(map(str, widths))} (mean), "
        f"{', '.join(map(str, widths.values()))} (tokens), or --pooling"
    )


def _names(classes: npt.NDArray[Any], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if classes.dtype.kind == "U":
        own = tuple(str(name) for name in classes)
        if labels is not None and labels != own:
            raise ImportProbeError(f"it names its classes itself, unlike --labels: {', '.join(own)[:500]}")
        return own
    count = len(classes)
    if labels is None:
        raise ImportProbeError(
            f"its {count} classes are numbers: give --labels {' | '.join(LABELS)} | a file of names"
        )
    if count != len(labels):
        raise ImportProbeError(f"it has {count} classes, --labels has {len(labels)} names")
    if not np.array_equal(classes, np.arange(count)):
        raise ImportProbeError(
            f"its classes are not the numbers 0 to {count - 1}, so that names cannot be given"
        )
    return labels


def _read_description(path: Path) -> dict[str, Any]:
    text = _read_text(path, f"its JSON file {path}")
    try:
        # NaN is no JSON, but Python writes it; null says the same.
        facts = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ImportProbeError(f"its JSON file {path} is not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise ImportProbeError(f"its JSON file {path} holds {type(facts).__name__}; expected an object")
    return facts


def _read_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise ImportProbeError(f"{what}: more than {MAX_TEXT_BYTES} bytes")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ImportProbeError(f"{what}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ImportProbeError(f"{what}: not UTF-8 text ({error})") from error
