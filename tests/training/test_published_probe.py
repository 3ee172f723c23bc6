from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from model import bundle
from model.config import SIZES, Preprocessing
from model.labels import BIGEARTHNET_19, EUROSAT_10
from model.probe import LinearProbe, load_probe
from tests.training import published_probes as published
from training.cli import app
from training.published_probe import ImportProbeError, import_probe, read_labels

ABC = ("a", "b", "c")


def features(n: int = 120, dim: int = 144, dtype: Any = np.float64, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0.3, 1.5, size=(n, dim)).astype(dtype)


def classes(n: int = 120, count: int = 3, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).permutation(np.arange(n) % count)


def same(probe: LinearProbe, x: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(probe.predict(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("multilabel", [False, True])
def test_predicts_what_scikit_learn_predicts(
    tmp_path: Path, multilabel: bool, dtype: Any, scale: bool
) -> None:
    x = features(dtype=dtype)
    y = np.stack([classes(seed=s, count=2) for s in range(3)], axis=1) if multilabel else classes()
    attributes, expected = published.fit(x, y, scale=scale, solver="sag")
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    assert (found.task, found.pooling, found.labels, found.threshold) == (
        "multi-label" if multilabel else "multi-class", "mean", ABC, 0.5,
    )  # fmt: skip
    same(found, x, expected)
    assert published.MODULE not in sys.modules


def test_a_scaler_far_from_zero_loses_no_precision(tmp_path: Path) -> None:
    x = features() * 1e-2 + 300
    attributes, expected = published.fit(x, classes(), scale=True)
    published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize(("centred", "scaled"), [(True, False), (False, True), (False, False)])
def test_half_a_scaler(tmp_path: Path, centred: bool, scaled: bool) -> None:
    x = features() + 2
    scaler = StandardScaler(with_mean=centred, with_std=scaled).fit(x)
    model = LogisticRegression(max_iter=500).fit(scaler.transform(x), classes())
    published.dump(tmp_path / "p.joblib", scale=True, scaler=scaler, model=model)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, model.predict_proba(scaler.transform(x)))


def test_a_fitted_scaler_that_is_not_used_is_not_applied(tmp_path: Path) -> None:
    x = features() + 2
    attributes, expected = published.fit(x, classes())
    published.dump(tmp_path / "p.joblib", **attributes | {"scaler": StandardScaler().fit(x)})
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3), 9])
def test_compressed_files(tmp_path: Path, compress: Any) -> None:
    x = features()
    attributes, expected = published.fit(x, classes(), scale=True)
    published.dump(tmp_path / "p.joblib", compress=compress, **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path: Path, protocol: int) -> None:
    x = features()
    attributes, expected = published.fit(x, classes(), scale=True)
    published.dump(tmp_path / "p.joblib", protocol=protocol, **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_array_layouts(tmp_path: Path, order: Any, byte_order: str) -> None:
    x = features()
    attributes, expected = published.fit(x, classes())
    coef = attributes["model"].coef_
    attributes["model"].coef_ = np.asarray(coef.astype(byte_order + "f8"), order=order)
    published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


def test_files_without_alignment_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As joblib before 1.2 wrote them."""
    wrapper = joblib.numpy_pickle.NumpyArrayWrapper
    made = wrapper.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        del self.numpy_array_alignment_bytes

    x = features()
    attributes, expected = published.fit(x, classes(), scale=True)
    with monkeypatch.context() as patch:
        patch.setattr(wrapper, "__init__", without)
        published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


def test_two_classes(tmp_path: Path) -> None:
    x = features()
    attributes, expected = published.fit(x, classes(count=2))
    published.dump(tmp_path / "p.joblib", **attributes)
    same(import_probe(tmp_path / "p.joblib", labels=("no", "yes")).probe, x, expected)


def test_two_classes_fitted_as_multinomial(tmp_path: Path) -> None:
    """As scikit-learn before 1.8 could: the softmax of (-z, z)."""
    x = features()
    attributes, expected = published.fit(x, classes(count=2))
    attributes["model"].multi_class = "multinomial"
    published.dump(tmp_path / "p.joblib", **attributes)
    odds = (expected[:, 1] / expected[:, 0]) ** 2
    same(
        import_probe(tmp_path / "p.joblib", labels=("no", "yes")).probe, x,
        np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1),
    )  # fmt: skip


@pytest.mark.parametrize(
    "how", [{"multi_class": "ovr"}, {"multi_class": "deprecated", "solver": "liblinear"}]
)
def test_one_vs_rest_within_logistic_regression(tmp_path: Path, how: dict[str, str]) -> None:
    """As scikit-learn before 1.8 could: sigmoids divided by their sum."""
    x = features()
    attributes, _ = published.fit(x, classes())
    model = attributes["model"]
    model.__dict__ |= how
    published.dump(tmp_path / "p.joblib", **attributes)
    sigmoids = 1 / (1 + np.exp(-(x @ model.coef_.T + model.intercept_)))
    same(
        import_probe(tmp_path / "p.joblib", labels=ABC).probe, x,
        sigmoids / sigmoids.sum(axis=1, keepdims=True),
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 3])
def test_one_vs_rest_classifier_of_classes(tmp_path: Path, count: int) -> None:
    x, y = features(), classes(count=count)
    model = OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(x, y)
    published.dump(tmp_path / "p.joblib", scale=False, scaler=None, model=model, multilabel=False)
    same(import_probe(tmp_path / "p.joblib", labels=ABC[:count]).probe, x, model.predict_proba(x))


def test_labels_that_training_never_or_always_had(tmp_path: Path) -> None:
    x = features()
    y = np.stack([classes(count=2), np.zeros(120, int), np.ones(120, int)], axis=1)
    attributes, expected = published.fit(x, y)
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    same(found, x, expected)
    assert found.predict(x)[:, 1].max() < 1e-6
    assert found.predict(x)[:, 2].min() > 1 - 1e-6


@pytest.mark.parametrize("dtype", [np.str_, object])
def test_classes_named_in_the_file(tmp_path: Path, dtype: Any) -> None:
    x, names = features(), np.array(["water", "forêt", "urban"])
    attributes, expected = published.fit(x, names[classes()].astype(dtype))
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib").probe
    assert found.labels == ("forêt", "urban", "water")
    same(found, x, expected)
    with pytest.raises(ImportProbeError, match="names its classes itself"):
        import_probe(tmp_path / "p.joblib", labels=ABC)


def test_a_bare_scikit_learn_classifier(tmp_path: Path) -> None:
    x = features()
    attributes, expected = published.fit(x, classes())
    joblib.dump(attributes["model"], tmp_path / "p.joblib")
    same(import_probe(tmp_path / "p.joblib", labels=ABC).probe, x, expected)


def test_all_tokens_row_major(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 15120)).astype(np.float32)
    attributes, _ = published.fit(x, classes(12))
    model = attributes["model"]
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    assert found.pooling == "tokens"
    same(found, x.reshape(12, 105, 144), model.predict_proba(x))


def make(folder: Path, facts: Any = None, dim: int = 144, name: str = "p") -> Path:
    rows = np.random.default_rng(0).normal(size=(3, dim))
    model = LogisticRegression()
    model.__dict__ |= {"coef_": rows, "intercept_": np.zeros(3), "classes_": np.arange(3)}
    path = folder / f"{name}.joblib"
    published.dump(path, scale=False, scaler=None, model=model, multilabel=False)
    if facts is not None:
        path.with_suffix(".json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return path


@pytest.mark.parametrize(
    ("dim", "facts", "given", "expected"),
    [
        (144, {"feature_slice": "576:720"}, None, "cls"),
        (144, {"feature_slice": "576:720"}, "cls", "cls"),
        (108, {"feature_slice": "432:540"}, None, "cls"),
        (144, {"feature_slice": None, "accuracy": 0.7}, None, "mean"),
        (144, {}, None, "mean"),
        (144, None, None, "mean"),
        (144, None, "patch_mean", "patch_mean"),
        (128, None, None, "mean"),
        (288, None, "patch_mean_std", "patch_mean_std"),
        (15120, {}, None, "tokens"),
        (15120, {"feature_slice": "0:15120"}, None, "tokens"),
        (24, None, "cls", "cls"),
    ],
)
def test_pooling(tmp_path: Path, dim: int, facts: Any, given: Any, expected: str) -> None:
    assert import_probe(make(tmp_path, facts, dim), pooling=given, labels=ABC).probe.pooling == expected


@pytest.mark.parametrize(
    ("dim", "facts", "given", "message"),
    [
        (144, {"feature_slice": "576:700"}, None, "576:700 has 124 values, the classifier reads 144"),
        (144, {"feature_slice": "720:864"}, None, "neither the cls token nor all tokens"),
        (144, {"feature_slice": [576, 720]}, None, 'not of the form "first:end"'),
        (144, {"feature_slice": "576:720"}, "mean", "--pooling is mean, but its 144 inputs are those of cls"),
        (15120, None, "mean", "--pooling is mean, but its 15120 inputs are those of tokens"),
        (100, None, None, r"reads 100 values, which tells no pooling: expected 144, 128, 108 \(mean\)"),
        (144, "{", None, "is not JSON"),
        (144, "[1]", None, "holds list; expected an object"),
        (144, "[" * 100_000, None, "is not JSON"),
    ],
)
def test_refuses_a_pooling_that_does_not_fit(
    tmp_path: Path, dim: int, facts: Any, given: Any, message: str
) -> None:
    with pytest.raises(ImportProbeError, match=message):
        import_probe(make(tmp_path, facts, dim), pooling=given, labels=ABC)


def test_keeps_what_the_description_reports(tmp_path: Path) -> None:
    path = make(tmp_path, '{"feature_slice": "576:720", "accuracy": 0.84, "f1": NaN}')
    assert import_probe(path, labels=ABC).probe.metrics == {
        "imported_from": "p.joblib",
        "description": {"feature_slice": "576:720", "accuracy": 0.84, "f1": None},
    }


def test_says_what_it_assumed(tmp_path: Path) -> None:
    (note,) = import_probe(make(tmp_path), labels=ABC).notes
    assert "mean of the tokens" in note
    assert "--pooling cls" in note
    assert import_probe(make(tmp_path), labels=ABC, pooling="mean").notes == ()


def test_labels(tmp_path: Path) -> None:
    assert read_labels("ben19") == BIGEARTHNET_19
    assert read_labels("eurosat10") == EUROSAT_10
    (tmp_path / "names.txt").write_bytes("\ufeffA b\r\nc é\r\n\r\n".encode())
    assert read_labels(str(tmp_path / "names.txt")) == ("A b", "c é")
    with pytest.raises(ImportProbeError, match="expected ben19 or eurosat10, or a file: No such file"):
        read_labels("ben43")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ImportProbeError, match="not UTF-8"):
        read_labels(str(tmp_path / "latin"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "its 3 classes are numbers: give --labels"), (("a", "b"), "has 3 classes, --labels has 2 names")],
)
def test_refuses_labels_that_do_not_fit(tmp_path: Path, labels: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(ImportProbeError, match=message):
        import_probe(make(tmp_path), labels=labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coef_": None}, "coef_ is NoneType"),
        ({"coef_": np.zeros((2, 144))}, r"intercept_ .* shape \(3,\); expected \(2,\)"),
        ({"coef_": np.zeros((4, 144)), "intercept_": np.zeros(4)}, "4 rows of weights for 3 classes"),
        ({"coef_": np.full((3, 144), np.nan)}, "weights has values that are not finite"),
        ({"coef_": np.array([["x"] * 144] * 3)}, "expected an array of numbers"),
        ({"classes_": np.array([1, 2, 3])}, "not the numbers 0 to 2"),
        ({"classes_": 3}, "are no list"),
    ],
)
def test_refuses_a_classifier_whose_parts_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    attributes, _ = published.fit(features(), classes())
    attributes["model"].__dict__ |= changes
    published.dump(tmp_path / "p.joblib", **attributes)
    with pytest.raises(ImportProbeError, match=message):
        import_probe(tmp_path / "p.joblib", labels=ABC)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"model": LogisticRegression()}, "its LogisticRegression has no classes_: not fitted"),
        ({"model": OneVsRestClassifier(LogisticRegression())}, "has no label_binarizer_: not fitted"),
        ({"model": StandardScaler()}, "its classifier is StandardScaler; expected LogisticRegression or"),
        ({"model": None}, "its classifier is NoneType"),
        ({}, "its LogisticRegressionModel has no model"),
    ],
)
def test_refuses_other_models(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    published.dump(tmp_path / "p.joblib", **attributes)
    with pytest.raises(ImportProbeError, match=message):
        import_probe(tmp_path / "p.joblib", labels=ABC)


def test_refuses_a_multilabel_flag_that_contradicts(tmp_path: Path) -> None:
    attributes, _ = published.fit(features(), classes())
    published.dump(tmp_path / "p.joblib", **attributes | {"multilabel": True})
    with pytest.raises(ImportProbeError, match="multilabel is True, its classifier multi-class"):
        import_probe(tmp_path / "p.joblib", labels=ABC)


def test_refuses_a_scaler_that_is_missing_or_of_another_width(tmp_path: Path) -> None:
    attributes, _ = published.fit(features(), classes())
    for scaler, message in (
        (None, "scaler is NoneType; expected StandardScaler"),
        (StandardScaler(), "StandardScaler has no mean_: not fitted"),
        (StandardScaler().fit(features(dim=5)), r"mean_ .* shape \(5,\); expected \(144,\)"),
    ):
        published.dump(tmp_path / "p.joblib", **attributes | {"scale": True, "scaler": scaler})
        with pytest.raises(ImportProbeError, match=message):
            import_probe(tmp_path / "p.joblib", labels=ABC)


def test_command_writes_a_probe(tmp_path: Path) -> None:
    x = features()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attributes, expected = published.fit(x, classes(count=10))
    published.dump(tmp_path / "es.joblib", **attributes)
    out = tmp_path / "probes" / "es.safetensors"
    arguments = ["import-probe", str(tmp_path / "es.joblib"), "-o", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--labels", "eurosat10", "--pooling", "cls"])
    assert result.exit_code == 0, result.output
    assert "10 classes" in result.output
    probe = load_probe(out)
    assert (probe.labels, probe.pooling) == (EUROSAT_10, "cls")
    same(probe, x, expected)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "its 10 classes are numbers: give --labels" in result.output
    result = CliRunner().invoke(app, [*arguments[:2], "-o", str(tmp_path / "nothing")])
    assert result.exit_code == 2
    assert "neither a .safetensors file nor" in " ".join(result.output.replace("│", " ").split())


def test_command_puts_a_probe_into_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle.write(
        folder, name="test", version="1", trained=False, config=SIZES["S"], preprocessing=Preprocessing(),
        training={}, metrics={}, parity={}, card="card", files={"encoder.fp32.onnx": b"x"},
    )  # fmt: skip
    names = tmp_path / "names.txt"
    names.write_text("\n".join(ABC))
    arguments = ["--labels", str(names), "-o", str(folder)]
    make(tmp_path, {"feature_slice": "576:720"}, name="abc")
    result = CliRunner().invoke(app, ["import-probe", str(tmp_path / "abc.joblib"), *arguments])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["import-probe", str(make(tmp_path)), *arguments, "--name", "other"])
    assert "note: taken as a probe on the mean" in result.output
    found = bundle.load(folder)
    assert found.probe_names == ("abc", "other")
    assert (found.probe("abc").labels, found.probe("abc").pooling) == (ABC, "cls")
    result = CliRunner().invoke(app, ["import-probe", str(make(tmp_path, dim=108)), *arguments])
    assert result.exit_code == 1
    assert "reads 108 values of mean; the encoder gives 144" in result.output
