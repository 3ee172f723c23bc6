"""Linear probes: predictions, the file, and everything that is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model.probe import HEADER_KEY, LinearProbe, ProbeError, encode, folded, load_probe, save_probe


def probe(**changes: Any) -> LinearProbe:
    rng = np.random.default_rng(1)
    values = {
        "task": "multi-label",
        "pooling": "mean",
        "labels": ("water", "forest", "town"),
        "weights": rng.normal(size=(3, 5)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
        "metrics": {"micro_map": 0.5},
    }
    return LinearProbe(**{**values, **changes})


def test_multi_label_probabilities_are_sigmoids_of_each_logit() -> None:
    x = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    p = probe()
    expected = 1 / (1 + np.exp(-(x.astype(np.float64) @ p.weights.T.astype(np.float64) + p.bias)))
    np.testing.assert_allclose(p.predict(x), expected, rtol=1e-6)
    assert p.predict(x).dtype == np.float32


def test_multi_class_probabilities_sum_to_one_and_survive_large_logits() -> None:
    p = probe(task="multi-class", weights=np.diag([1000.0, 2000, 3000]).astype(np.float32))
    out = p.predict(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(out.argmax(axis=1), [0, 1, 2])


def test_calibration_scales_and_shifts_the_logits() -> None:
    x = np.ones((1, 5), np.float32)
    plain = probe()
    scale, shift = np.float32([2, 0.5, 1]), np.float32([0, 1, -1])
    calibrated = probe(scale=scale, shift=shift)
    np.testing.assert_allclose(calibrated.logits(x), plain.logits(x) * scale + shift, rtol=1e-6)
    assert calibrated.calibrated
    assert not plain.calibrated


def test_tokens_are_flattened_row_by_row() -> None:
    tokens = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    weights = np.zeros((1, 6), np.float32)
    weights[0, 2 * 2 + 1] = 1  # value 1 of token 2
    p = probe(pooling="tokens", labels=("a",), weights=weights, bias=np.zeros(1, np.float32))
    np.testing.assert_array_equal(p.logits(tokens)[:, 0], tokens[:, 2, 1])
    np.testing.assert_array_equal(p.logits(tokens), p.logits(tokens.reshape(2, 6)))


def test_a_tile_gets_the_same_bits_alone_and_in_a_batch() -> None:
    rng = np.random.default_rng(3)
    p = probe(weights=rng.normal(size=(3, 144)).astype(np.float32))
    x = rng.normal(size=(33, 144)).astype(np.float32)
    together = p.predict(x)
    for n in (1, 3, 8):
        np.testing.assert_array_equal(p.predict(x[:n]), together[:n])


def test_folding_standardisation_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(5, 3, size=(20, 5))
    mean, std, w, b = x.mean(0), x.std(0), rng.normal(size=(3, 5)), rng.normal(size=3)
    weights, bias = folded(w, b, mean, std)
    np.testing.assert_allclose(
        probe(weights=weights, bias=bias).logits(x), (x - mean) / std @ w.T + b, atol=1e-5
    )


def test_one_vs_rest_divides_the_sigmoids_by_their_sum(tmp_path: Path) -> None:
    p = probe(task="multi-class", one_vs_rest=True, bias=np.array([0.25, -1.0, 2.0]))
    x = np.random.default_rng(5).normal(size=(7, 5))
    sigmoids = 1 / (1 + np.exp(-p.logits(x)))
    np.testing.assert_allclose(p.predict(x), sigmoids / sigmoids.sum(axis=1, keepdims=True), atol=1e-7)
    save_probe(tmp_path / "p.safetensors", p)
    q = load_probe(tmp_path / "p.safetensors")
    assert q.bias.dtype == np.float64
    np.testing.assert_array_equal(q.predict(x), p.predict(x))
    far = np.full((1, 5), -1e4)
    assert np.isfinite(p.predict(far)).all()


@pytest.mark.parametrize("calibrated", [False, True])
def test_round_trip(tmp_path: Path, calibrated: bool) -> None:
    ones = np.ones(3, np.float32)
    p = probe(threshold=0.3, scale=ones * 2, shift=ones) if calibrated else probe(threshold=0.3)
    save_probe(tmp_path / "p.safetensors", p)
    q = load_probe(tmp_path / "p.safetensors")
    assert encode(q) == encode(p)
    assert (q.task, q.pooling, q.labels, q.threshold, q.metrics, q.calibrated) == (
        "multi-label", "mean", p.labels, 0.3, {"micro_map": 0.5}, calibrated,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_array_equal(q.predict(x), p.predict(x))
    assert [f.name for f in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "regression"}, "task is 'regression'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"labels": ("a", "b")}, r"expected \(2, dim\)"),
        ({"labels": ("a", "b", "a")}, "given twice: a"),
        ({"labels": ("a", "b", " ")}, "is empty"),
        ({"labels": ()}, "0 labels"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"bias": np.zeros(2, np.float32)}, r"bias of shape \(2,\); expected \(3,\)"),
        ({"bias": np.zeros(3, np.float16)}, "bias is float16; expected float32 or float64"),
        ({"one_vs_rest": True}, "for multi-class only"),
        ({"one_vs_rest": 1, "task": "multi-class"}, "one_vs_rest is 1"),
        ({"bias": np.float32([0, np.inf, 0])}, "bias has values that are not finite"),
        ({"scale": np.ones(3, np.float32)}, "needs both scale and shift"),
        ({"weights": np.zeros((3, 0), np.float32)}, r"weights of shape \(3, 0\)"),
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        probe(**changes)


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 2), (5,)])
def test_refuses_embeddings_of_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ProbeError, match="expected 5 values each"):
        probe().predict(np.zeros(shape, np.float32))


def test_refuses_files_that_are_no_probe(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    with pytest.raises(ProbeError, match="no such file"):
        load_probe(file)
    file.write_bytes(b"not safetensors")
    with pytest.raises(ProbeError, match="not a readable safetensors file"):
        load_probe(file)
    save_file({"weights": np.zeros((3, 5), np.float32)}, file)
    with pytest.raises(ProbeError, match="not a landmoe probe"):
        load_probe(file)


def altered(file: Path, **header: Any) -> None:
    """A probe's file with other values in its header, or without one for None."""
    save_probe(file, probe())
    tensors = load_file(file)
    original = {
        "format": 1, "task": "multi-label", "pooling": "mean", "labels": ["water", "forest", "town"],
        "threshold": 0.5, "metrics": {},
    }  # fmt: skip
    values = {k: v for k, v in {**original, **header}.items() if v is not None}
    save_file(tensors, file, metadata={HEADER_KEY: json.dumps(values)})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": 99}, "probe format 99"),
        ({"labels": "abc"}, "labels are not a list"),
        ({"labels": [1, 2, 3]}, "not a text"),
        ({"labels": [["a"], ["b"], ["c"]]}, "not a text"),
        ({"threshold": "high"}, "header cannot be read"),
        ({"task": None}, "header cannot be read"),
        ({"task": ["multi-label"]}, "task is"),
        ({"metrics": [1]}, "metrics not an object"),
    ],
)
def test_refuses_damaged_headers(tmp_path: Path, header: dict[str, Any], message: str) -> None:
    file = tmp_path / "p.safetensors"
    altered(file, **header)
    with pytest.raises(ProbeError, match=message):
        load_probe(file)


def test_refuses_a_header_that_is_not_json_and_surplus_tensors(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    weights = {"weights": np.zeros((3, 5), np.float32), "bias": np.zeros(3, np.float32)}
    save_file(weights, file, metadata={HEADER_KEY: "{"})
    with pytest.raises(ProbeError, match="header cannot be read"):
        load_probe(file)
    save_file({**weights, "other": np.zeros(1, np.float32)}, file, metadata={HEADER_KEY: "{}"})
    with pytest.raises(ProbeError, match="bias, other, weights"):
        load_probe(file)


def test_metrics_must_be_json() -> None:
    with pytest.raises(ProbeError, match="cannot be written as JSON"):
        encode(replace(probe(), metrics={"f1": float("nan")}))
