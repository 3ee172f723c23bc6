"""A published file becomes a probe: its arrays in any form, its pooling, its labels, and the command."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from model import bundle, bundle_writer
from model.config import SIZES, Preprocessing
from model.labels import BIGEARTHNET_19, EUROSAT_10
from model.probe import load_probe
from tests.training import published_probes as published
from tests.training.published_probes import ABC, classes, dump_weights, features, same
from training.cli import app
from training.published_probe import ImportProbeError, import_probe, read_labels


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


def test_all_tokens_row_major(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 15120)).astype(np.float32)
    attributes, _ = published.fit(x, classes(12))
    model = attributes["model"]
    published.dump(tmp_path / "p.joblib", **attributes)
    found = import_probe(tmp_path / "p.joblib", labels=ABC).probe
    assert found.pooling == "tokens"
    same(found, x.reshape(12, 105, 144), model.predict_proba(x))


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
    assert (
        import_probe(dump_weights(tmp_path, facts, dim), pooling=given, labels=ABC).probe.pooling == expected
    )


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
        import_probe(dump_weights(tmp_path, facts, dim), pooling=given, labels=ABC)


def test_keeps_what_the_description_reports(tmp_path: Path) -> None:
    path = dump_weights(tmp_path, '{"feature_slice": "576:720", "accuracy": 0.84, "f1": NaN}')
    assert import_probe(path, labels=ABC).probe.metrics == {
        "imported_from": "p.joblib",
        "description": {"feature_slice": "576:720", "accuracy": 0.84, "f1": None},
    }


def test_says_what_it_assumed(tmp_path: Path) -> None:
    (note,) = import_probe(dump_weights(tmp_path), labels=ABC).notes
    assert "mean of the tokens" in note
    assert "--pooling cls" in note
    assert import_probe(dump_weights(tmp_path), labels=ABC, pooling="mean").notes == ()


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
        import_probe(dump_weights(tmp_path), labels=labels)


def test_refuses_a_multilabel_flag_that_contradicts(tmp_path: Path) -> None:
    attributes, _ = published.fit(features(), classes())
    published.dump(tmp_path / "p.joblib", **attributes | {"multilabel": True})
    with pytest.raises(ImportProbeError, match="multilabel is True, its classifier multi-class"):
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
    (tmp_path / "file").write_text("no bundle")
    result = CliRunner().invoke(app, [*arguments[:2], "-o", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "neither a .safetensors file nor" in " ".join(result.output.replace("│", " ").split())


def test_command_puts_a_probe_into_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle_writer.write(
        folder, name="test", version="1", trained=False, config=SIZES["S"], preprocessing=Preprocessing(),
        training={}, metrics={}, parity={}, card="card", files={"encoder.fp32.onnx": b"x"},
    )  # fmt: skip
    names = tmp_path / "names.txt"
    names.write_text("\n".join(ABC))
    arguments = ["--labels", str(names), "-o", str(folder)]
    dump_weights(tmp_path, {"feature_slice": "576:720"}, name="abc")
    result = CliRunner().invoke(app, ["import-probe", str(tmp_path / "abc.joblib"), *arguments])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(
        app, ["import-probe", str(dump_weights(tmp_path)), *arguments, "--name", "other"]
    )
    assert "note: taken as a probe on the mean" in result.output
    found = bundle.load(folder)
    assert found.probe_names == ("abc", "other")
    assert (found.probe("abc").labels, found.probe("abc").pooling) == (ABC, "cls")
    result = CliRunner().invoke(app, ["import-probe", str(dump_weights(tmp_path, dim=108)), *arguments])
    assert result.exit_code == 1
    assert "reads 108 values of mean; the encoder gives 144" in result.output


def test_a_probe_on_embeddings_that_one_has_goes_into_a_copy_of_the_packaged_bundle(tmp_path: Path) -> None:
    x, names = features(), np.array(["acker", "wald", "wasser"])
    model = LogisticRegression(max_iter=1000).fit(x, names[classes(count=3)])
    joblib.dump(model, tmp_path / "own.joblib")
    arguments = ["import-probe", str(tmp_path / "own.joblib"), "-o", str(tmp_path / "mine")]
    result = CliRunner().invoke(app, [*arguments, "--pooling", "mean"])
    assert result.exit_code == 0, result.output
    assert "mine is new: a copy of the packaged bundle with this probe" in result.output.replace("\n", "")
    packaged, found = bundle.load(), bundle.load(tmp_path / "mine")
    assert found.encoder_digest() == packaged.encoder_digest()
    assert set(found.probe_names) == {*packaged.probe_names, "own"}
    assert found.probe("own").labels == ("acker", "wald", "wasser")
    same(found.probe("own"), x, model.predict_proba(x))
