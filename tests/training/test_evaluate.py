"""The commands probe, evaluate and figures, from generated data to files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model import bundle, bundle_writer, checkpoint
from model.bundle import Bundle, BundleError
from model.checkpoint import Checkpoint
from model.fused import fuse
from model.graph import to_onnx
from tests.training.scenery import PREPROCESSING, TINY, bigearthnet, eurosat, scene_with_cover
from training import tasks
from training.cli import app
from training.comparison import compare
from training.features import Features
from training.findings import findings
from training.frozen import of_checkpoint
from training.heldout import read
from training.probe import add_to_bundle, calibration, fit, fit_all
from training.tasks import Task

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork.*:DeprecationWarning",  # of a library's process pool, where threads run already
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    eurosat(folder / "eurosat.npz")
    bigearthnet(folder / "ben.npz")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    made = checkpoint.initialise(TINY, 3, PREPROCESSING)
    checkpoint.save(path, made)
    return path, made


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_evaluate_writes_the_table_and_the_plots(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    scene, cover = scene_with_cover(tmp_path)
    out = tmp_path / "out"
    options = ("--land-cover-classes", "1=dark,2=bright", "--quick")
    invoke("evaluate", found[0], "--data", data, "-o", out, "--scene", scene, "--land-cover", cover, *options)
    assert "its figures mean little" in (out / "evaluation.md").read_text()  # a quick one
    result: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    assert set(result["tasks"]) == {"bigearthnet-19", "eurosat-10"}
    assert result["data"]["seen_in_pretraining"] is None
    euro = result["tasks"]["eurosat-10"]
    rows = {(r["features"], r["pooling"], r["metadata"], r["protocol"]): r for r in euro["probes"]}
    statistics = rows["band statistics", "", "off", "tuned"]["scores"]["accuracy"]
    assert statistics["value"] > 0.8  # the spectrum tells the classes; chance is 0.1
    assert statistics["low"] <= statistics["value"] <= statistics["high"]
    for pooling in ("mean", "cls", "patch_mean", "patch_mean_std", "tokens"):
        for metadata in ("on", "off", "shuffled"):
            assert ("encoder", pooling, metadata, "tuned") in rows
        assert rows["encoder", pooling, "on", "published"]["minus"].keys() >= {
            "band statistics",
            "untrained encoder",
            "metadata off",
        }
    assert "Pastures" in {c["label"] for c in result["tasks"]["bigearthnet-19"]["classes"] if c["supported"]}
    (cover_of_scene,) = result["land_cover"].values()
    land = {(r["features"], r["pooling"]): r for r in cover_of_scene["rows"] if r["metadata"] == "off"}
    assert land["band statistics", ""]["scores"]["dark"]["value"] > 0.8
    text = (out / "evaluation.md").read_text()
    assert "Coastal wetlands (2)" in text
    assert "untrained" in text
    for name in ("reconstruction_error", "probes_eurosat-10", "k_shot_bigearthnet-19", "land_cover_1"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_without_a_supported_class_is_reported_without_scores_of_classes(data: Path) -> None:
    from rich.progress import Progress

    euro = task(data, "eurosat-10")
    few = np.flatnonzero(np.arange(len(euro.tiles)) % 6 < 4)  # four tiles of every class
    small = replace(euro, tiles=euro.tiles.take(few), truth=euro.truth[few])
    x = small.tiles.raw().astype(np.float64).mean(axis=(2, 3))
    described = [Features("band statistics", "", "off", x)]
    with Progress(disable=True) as progress:
        found = compare(
            small, described, progress, count=2, repeats=1, published_repeats=1, resamples=20, draws=2, seed=0
        )
    scores = found["probes"][0]["scores"]
    assert scores["macro_map"]["value"] is None
    assert scores["accuracy"]["value"] > 0.3
    assert found["k_shot"]["curves"] == {}


def test_every_description_is_repeated_as_often(data: Path) -> None:
    """Whatever protocols came before it: the paired differences are of the same folds."""
    from rich.progress import Progress

    euro = task(data, "eurosat-10")
    x = np.random.default_rng(0).normal(size=(len(euro.tiles), 6))
    described = [Features("encoder", "mean", m, x) for m in ("on", "off")]
    with Progress(disable=True) as progress:
        found = compare(
            euro, described, progress, count=2, repeats=3, published_repeats=1, resamples=5, draws=2, seed=0
        )
    first, second = (row for row in found["probes"] if row["protocol"] == "tuned")
    assert first["scores"] == second["scores"]


@pytest.mark.slow
def test_figures_are_drawn(found: tuple[Path, Checkpoint], data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.csv").write_text("step,masked,unmasked,learning_rate\n10,90,80,1e-4\n20,50,40,2e-4\n")
    (run / "validation.csv").write_text("step,masked,band_mean\n20,0.5,0.4\n")
    scene, _ = scene_with_cover(tmp_path)
    options = ("--run", run, "--scene", scene)
    output = invoke("figures", found[0], "--data", data, "-o", tmp_path / "out", *options)
    names = {Path(line).stem for line in output.split()}
    assert names == {
        "reconstruction", "routing", "expert_use", "contact_sheet", "map_eurosat-10", "map_sources", "loss",
        "scene",
    }  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_decoder_of_normalised_patches_is_not_asked_for_pixels(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "normalised.safetensors"
    made = replace(
        found[1], info={"trained": True, "recipe": {"data": {}, "loss": {"normalise_patches": True}}}
    )
    checkpoint.save(path, made)
    drawn = invoke("figures", path, "--data", data, "-o", tmp_path / "figures")
    assert "reconstruction.png" not in drawn
    assert "routing.png" in drawn
    invoke("evaluate", path, "--data", data, "-o", tmp_path / "out", "--quick")
    assert "reconstruction" not in json.loads((tmp_path / "out" / "evaluation.json").read_text())


@pytest.mark.slow
def test_every_multi_label_task_has_a_contact_sheet(found: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    for name in ("one", "other"):
        bigearthnet(tmp_path / "data" / f"{name}.npz", 32)
    output = invoke("figures", found[0], "--data", tmp_path / "data", "-o", tmp_path / "out")
    names = {Path(line).stem for line in output.split()}
    assert {n for n in names if n.startswith("contact")} == {
        "contact_sheet_bigearthnet-19-one",
        "contact_sheet_bigearthnet-19-other",
    }


def task(data: Path, name: str) -> Task:
    return next(t for t in tasks.find(read(data, PREPROCESSING), 1000)[0] if t.name == name)


def test_a_fitted_probe_knows_its_classes_and_says_what_it_reaches(
    found: tuple[Path, Checkpoint], data: Path
) -> None:
    ben = task(data, "bigearthnet-19")
    probe = fit(ben, of_checkpoint(found[1]), pooling="patch_mean")
    assert (probe.task, probe.pooling, len(probe.labels)) == ("multi-label", "patch_mean", 19)
    assert probe.dim == TINY.embed_dim
    assert 0.05 <= probe.threshold <= 0.95
    scores = probe.metrics["scores"]
    assert scores["micro_map"]["value"] > 0.7
    assert "Coastal wetlands" in probe.metrics["unsupported"]
    by_label = {c["label"]: c["average_precision"] for c in probe.metrics["classes"]}
    assert by_label["Coastal wetlands"] is None
    assert by_label["Marine waters"] > 0.7
    json.dumps(probe.metrics, allow_nan=False)
    uncalibrated = probe.metrics["log_loss_uncalibrated"]
    assert probe.calibrated == (probe.metrics["log_loss"] < uncalibrated)


def test_the_exported_probe_predicts_what_the_fitted_one_does(
    found: tuple[Path, Checkpoint], data: Path
) -> None:
    from training import linear
    from training.embeddings import embed

    euro = task(data, "eurosat-10")
    probe = fit(euro, of_checkpoint(found[1]), pooling="mean")
    x = embed(found[1].model.encoder, euro.tiles.dn(), euro.tiles["encodings"], ("mean",))["mean"]
    direct = linear.tuned(x.astype(np.float64), euro.truth, euro.places, multi_label=False)
    if not probe.calibrated:
        np.testing.assert_allclose(probe.predict(x), direct.probabilities(x.astype(np.float64)), atol=1e-4)
    assert (probe.predict(x).argmax(1) == euro.truth.argmax(1)).mean() > 0.5
    np.testing.assert_allclose(probe.predict(x).sum(axis=1), 1, atol=1e-5)


def test_calibration_undoes_overconfidence_and_leaves_good_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(4000, 1))
    truth = rng.random((4000, 1)) < 1 / (1 + np.exp(-logits))
    scale, shift = calibration(truth, logits, multi_label=True)
    assert scale[0] == pytest.approx(1, abs=0.1)
    assert shift[0] == pytest.approx(0, abs=0.1)
    scale, _ = calibration(truth[:60], logits[:60] * 1.3, multi_label=True)
    assert scale[0] != 1  # slight miscalibration of few tiles is searched for too
    scale, shift = calibration(truth, logits * 4 - 3, multi_label=True)
    assert scale[0] == pytest.approx(0.25, abs=0.03)
    assert shift[0] == pytest.approx(0.75, abs=0.1)


def write_bundle(path: Path, made: Checkpoint, **changes: Any) -> Bundle:
    values: dict[str, Any] = {
        "name": "tiny", "version": "1", "trained": False, "config": made.config,
        "preprocessing": made.preprocessing, "training": {}, "metrics": {"a": 1}, "parity": {"fp32": {}},
        "card": "# card",
        "files": {
            "encoder.fp32.onnx": to_onnx(fuse(made.model.encoder)).SerializeToString(),
            "probes/mine.safetensors": b"other",
        },
    }  # fmt: skip
    return bundle_writer.write(path, **{**values, **changes})


def test_probes_join_a_bundle_and_leave_the_rest_alone(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    before = write_bundle(tmp_path / "bundle", found[1])
    output = invoke("probe", found[0], "--data", data, "-b", tmp_path / "bundle", "--pooling", "mean")
    after = bundle.load(tmp_path / "bundle")
    assert after.probe_names == ("bigearthnet-19", "eurosat-10", "mine")
    assert after.probe("eurosat-10").task == "multi-class"
    assert after.files["encoder.fp32.onnx"] == before.files["encoder.fp32.onnx"]
    assert after.files["probes/mine.safetensors"] == before.files["probes/mine.safetensors"]
    assert (after.card, after.metrics["a"]) == ("# card", 1)
    assert after.metrics["probes"]["eurosat-10"]["accuracy"]["value"] > 0.3
    assert after.digest != before.digest
    assert after.digest in output


def test_probes_of_another_network_are_refused(found: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    other = checkpoint.initialise(TINY, 0)  # other preprocessing
    write_bundle(tmp_path / "bundle", other)
    with pytest.raises(BundleError, match="made from another network"):
        add_to_bundle(tmp_path / "bundle", of_checkpoint(found[1]), {})


def test_probes_of_other_weights_are_refused(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    """Of the same architecture and preprocessing, as the last and the best of a run are."""
    before = write_bundle(tmp_path / "bundle", checkpoint.initialise(TINY, 4, PREPROCESSING))
    arguments = ["probe", found[0], "--data", data, "-b", tmp_path / "bundle", "--pooling", "mean"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "was made from other weights than this checkpoint's" in result.output
    assert bundle.load(tmp_path / "bundle").digest == before.digest


def test_data_without_labels_are_refused(found: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    from training.shards import PackError

    np.savez(tmp_path / "plain.npz", x=np.ones((8, 7, 40, 40), np.uint16))
    with pytest.raises(PackError, match=r"no labels to fit a probe on \(no tile has one\)"):
        fit_all(of_checkpoint(found[1]), tmp_path)


@pytest.mark.slow
def test_a_bundle_is_evaluated_as_its_checkpoint_is_but_for_the_decoder(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    made = tmp_path / "exported"
    invoke("export", found[0], "-o", made)
    results = {}
    for name, network in (("bundle", made), ("checkpoint", found[0])):
        invoke("evaluate", network, "--data", data, "-o", tmp_path / name, "--quick")
        results[name] = json.loads((tmp_path / name / "evaluation.json").read_text())
    ours, theirs = results["bundle"], results["checkpoint"]
    assert "reconstruction" not in ours
    assert not (tmp_path / "bundle/reconstruction_error.png").exists()
    report = (tmp_path / "bundle/evaluation.md").read_text()
    assert "An encoder, untrained" in report
    assert "Reconstruction" not in report
    for name, task in ours["tasks"].items():
        for row, other in zip(task["probes"], theirs["tasks"][name]["probes"], strict=True):
            assert {k: row[k] for k in ("features", "pooling")} == {
                k: other[k] for k in ("features", "pooling")
            }
            for score, estimate in row["scores"].items():
                assert estimate["value"] == pytest.approx(other["scores"][score]["value"], abs=0.02), row
    # What only the checkpoint's has stays in a bundle that is told of a later one's.
    for name in ("checkpoint", "bundle"):
        invoke("describe", made, "--evaluation", tmp_path / name / "evaluation.json")
    kept = bundle.load(made).metrics["evaluation"]
    assert kept["reconstruction"]["places"] == theirs["reconstruction"]["places"]
    assert kept["measures"] == findings(ours)["measures"]
