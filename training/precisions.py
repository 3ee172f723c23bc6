"""What precision=fast costs: embeddings and probe scores of the exact encoder beside the one in bf16.

Probes are fitted on exact embeddings and applied to both, since that is what a served bundle does: its probes
do not know which precision will run. Scores are cross-validated over whole places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from model import openvino_session
from model.bundle import Bundle
from model.deviation import MIN_COSINE, cosine
from model.native import session as native
from model.native.session import NativeEncoder, NativeSession
from model.openvino_session import OpenVinoSession
from model.parity import PROVIDER
from training import linear, metrics, tasks
from training.heldout import EvaluationError, Tiles, read

BATCH = 4  # tiles
COMPARED = ("mean", "patch_mean", "cls")
FOLDS = 5
MAX_TILES = 2000  # of a task
MAX_COMPARED = 4000  # whose embeddings are compared, over all sources

Array = NDArray[np.float32]


class Runs(Protocol):
    """An encoder that embeds a batch; the outputs asked for, in their order."""

    def run(self, dn: NDArray[np.uint16], metadata: Array, outputs: Sequence[str]) -> list[Array]:
        """Of dn uint16 (B, 7, S, S) with metadata float32 (B, 4, 2)."""


class Exact:
    """The fp32 encoder in ONNX Runtime, in as many threads as PyTorch may use: --threads says how many."""

    def __init__(self, content: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(content, options, providers=[PROVIDER])

    def run(self, dn: NDArray[np.uint16], metadata: Array, outputs: Sequence[str]) -> list[Array]:
        """See `Runs`."""
        values: list[Array] = self._session.run(list(outputs), {"dn": dn, "metadata": metadata})
        return values


def compare(
    bundle: Bundle, data: Path, splits: Sequence[str] = ("test",), *, kernels: bool = True
) -> dict[str, Any]:
    """Measures both precisions of a bundle on the same tiles, in as many threads as PyTorch may use.

    Args:
        bundle: whose encoder runs.
        data: a packed set, or a folder of .npz sets.
        splits: of a packed set.
        kernels: whether bf16 is our kernels' where this CPU runs them; else OpenVINO's.

    Returns:
        JSON-ready: `fast` (what ran it), `tiles`, `cosine` (for each pooling `least`, `worst_1_percent`,
        `mean`, and the share `below` its `bound`), and `tasks` with `exact`, `fast` and
        their `difference` for every score.

    Raises:
        EvaluationError: bf16 cannot be had here.
        PackError: the data cannot be read.
    """
    content, threads = bundle.encoder_path().read_bytes(), torch.get_num_threads()
    fast: Runs
    without = native.unusable("bf16") if kernels else "kernels are not asked for"
    if without is None:
        encoder = NativeEncoder(content, bundle.config, "bf16")
        fast = NativeSession(encoder, chunk=BATCH, threads=threads)
    elif (reason := openvino_session.unusable()) is None:
        fast = OpenVinoSession(content, threads=threads, streams=1, fixed=BATCH)
    else:
        raise EvaluationError(f"precision 'fast' on this CPU: {without}, and {reason}")
    runtime = "kernels" if without is None else "OpenVINO"
    return {"fast": runtime} | compare_encoders(
        Exact(content), fast, read(data, bundle.preprocessing, splits)
    )


def compare_encoders(exact: Runs, fast: Runs, tiles: Tiles) -> dict[str, Any]:
    """See `compare`."""
    sample = tiles.limited(MAX_COMPARED)
    found, left_out = tasks.find(tiles, MAX_TILES)
    return {
        "tiles": len(sample),
        "cosine": _cosines(_embed(exact, sample), _embed(fast, sample)),
        "tasks": {task.name: _scores(task, exact, fast) for task in found},
        "left_out": left_out,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The figures for a terminal."""
    out = [f"cosine of bf16 with fp32, {result['tiles']} tiles"]
    for name, c in result["cosine"].items():
        out.append(
            f"  {name:<11} least {c['least']:.6f}, worst 1 % {c['worst_1_percent']:.6f}, "
            f"mean {c['mean']:.6f}, below {c['bound']:g}: {c['below']:.2%}"
        )
    for name, task in result["tasks"].items():
        out.append(f"{name}, {task['tiles']} tiles: probes fitted on fp32, by {FOLDS} folds of places")
        for pooling, scores in task["scores"].items():
            parts = [f"{s} {v['exact']:.4f} → {v['fast']:.4f}" for s, v in scores.items()]
            out.append(f"  {pooling:<11} {', '.join(parts)}")
    return [*out, *(f"left out: {reason}" for reason in result["left_out"])]


def _embed(encoder: Runs, tiles: Tiles) -> dict[str, Array]:
    parts: list[list[Array]] = []
    for start in range(0, len(tiles), BATCH):
        some = tiles.take(np.arange(start, min(start + BATCH, len(tiles))))
        parts.append(encoder.run(some.dn(), some["encodings"].astype(np.float32), COMPARED))
    return {
        name: np.concatenate(values) for name, values in zip(COMPARED, zip(*parts, strict=True), strict=True)
    }


def _cosines(exact: dict[str, Array], fast: dict[str, Array]) -> dict[str, dict[str, float]]:
    result = {}
    for name in COMPARED:
        values = cosine(fast[name], exact[name])
        result[name] = {
            "least": float(values.min()),
            "worst_1_percent": float(np.quantile(values, 0.01)),
            "mean": float(values.mean()),
            "below": float((~(values >= MIN_COSINE[name])).mean()),
            "bound": MIN_COSINE[name],
        }
    return result


def _scores(task: tasks.Task, exact: Runs, fast: Runs) -> dict[str, Any]:
    both = {"exact": _embed(exact, task.tiles), "fast": _embed(fast, task.tiles)}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for pooling in COMPARED:
        predicted = _predictions(task, {kind: values[pooling] for kind, values in both.items()})
        each = {
            kind: metrics.classification(task.truth, p, multi_label=task.multi_label, threshold=thresholds)
            for kind, (p, thresholds) in predicted.items()
        }
        scores[pooling] = {
            name: {
                "exact": float(value[0]),
                "fast": float(each["fast"][name][0]),
                "difference": float(each["fast"][name][0] - value[0]),
            }
            for name, value in each["exact"].items()
        }
    return {"tiles": len(task.tiles), "scores": scores}


def _predictions(
    task: tasks.Task, embedded: dict[str, Array]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Probabilities (N, C) and thresholds (N,) of every tile from probes that never saw its place."""
    folds = linear.place_folds(task.places, FOLDS, seed=0)
    values = {kind: x.astype(np.float64) for kind, x in embedded.items()}
    predicted = {kind: (np.zeros(task.truth.shape), np.zeros(len(folds))) for kind in values}
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        fitted = linear.tuned(
            values["exact"][inside], task.truth[inside], task.places[inside], multi_label=task.multi_label
        )
        for kind, (probabilities, thresholds) in predicted.items():
            probabilities[outside] = fitted.probabilities(values[kind][outside])
            thresholds[outside] = fitted.threshold
    return predicted
