"""From a folder of tiles and a list of one's own labels to their classification by the service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from model import bundle, checkpoint
from service.app import create_app
from service.cli import app as landmoe
from service.settings import Settings
from tests.training.labelled import folder, tile
from tests.training.scenery import PREPROCESSING, TINY
from training.cli import app as landmoe_train

ALL = ("--split", "train", "--split", "validation", "--split", "test")
SINGLE = [[("field", "forest", "water")[n % 3]] for n in range(60)] + [["quarry"]]
SEVERAL = [
    [name for bit, name in enumerate(("field", "Öde Fläche", "water")) if (n % 7 + 1) >> bit & 1]
    for n in range(70)
]


@dataclass(frozen=True)
class Made:
    """What came of a list of labels."""

    packed: Path
    network: Path
    bundle: Path
    output: str  # of `landmoe-train probe`


def train(*arguments: object) -> str:
    result = CliRunner().invoke(landmoe_train, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def made(at: Path, labels: Sequence[Sequence[str]]) -> Made:
    listing = folder(at / "my tiles", labels)
    train("pack", at / "my tiles", "-o", at / "packed", "--list", listing)
    network = at / "network.safetensors"
    checkpoint.save(network, checkpoint.initialise(TINY, 3, PREPROCESSING))
    train("export", network, "-o", at / "bundle")
    options = ("--data", at / "packed", "-b", at / "bundle", "--pooling", "patch_mean")
    output = train("probe", network, *options, *ALL)
    return Made(at / "packed", network, at / "bundle", output)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("single"), SINGLE)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("several"), SEVERAL)


def client(folder: Path) -> TestClient:
    return TestClient(create_app(Settings(bundle=str(folder), engine_threads=1, log_level="warning")))


def test_one_label_a_tile_is_served_as_a_multi_class_probe(single: Made) -> None:
    assert "my_tiles: multi-class, 3 classes, patch_mean, accuracy" in single.output
    assert "left out: my_tiles: labels of under 5 tiles or 2 places: 'quarry'" in single.output
    with client(single.bundle) as service:
        (probe,) = service.get("/model").json()["probes"]
        assert (probe["name"], probe["labels"]) == ("my_tiles", ["field", "forest", "water"])
        assert probe["metrics"]["scores"]["accuracy"]["value"] > 0.9
        for number, label in enumerate(("water", "field", "forest"), start=500):  # tiles never seen
            files = {"tile": ("tile.tif", tile([label], number))}
            answer = service.post("/classify", files=files, data={"datetime": "2024-07-01T10:10:00Z"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"][0]["selected"] == [label]


def test_several_labels_a_tile_are_served_as_a_multi_label_probe(several: Made) -> None:
    assert "my_tiles: multi-label, 3 classes" in several.output
    with client(several.bundle) as service:
        files = {"tile": ("tile.tif", tile(["Öde Fläche", "water"], 501))}
        answer = service.post("/classify", files=files, data={"probe": "my_tiles"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["task"] == "multi-label"
        assert set(answer.json()["data"][0]["selected"]) == {"Öde Fläche", "water"}


def test_the_command_classifies_with_it(single: Made, tmp_path: Path) -> None:
    paths = []
    for number, label in enumerate(("forest", "water"), start=600):
        paths.append(tmp_path / f"{label}.tif")
        paths[-1].write_bytes(tile([label], number))
    output = tmp_path / "classes.json"
    options = ["--bundle", str(single.bundle), "--probe", "my_tiles", "-o", str(output), "-q"]
    result = CliRunner().invoke(landmoe, ["classify", *map(str, paths), *options])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())["data"]
    assert [item["selected"] for item in found] == [["forest"], ["water"]]


def test_a_bundle_is_enough(single: Made, tmp_path: Path) -> None:
    """Without the checkpoint it was made of, the same probes come of it, in it or in a copy."""
    options = ("--data", single.packed, "--pooling", "patch_mean", *ALL)
    expected = bundle.load(single.bundle).probe("my_tiles")
    original = bundle.load(single.bundle)
    train("probe", single.bundle, "-b", tmp_path / "copy", *options)
    train("probe", "-b", tmp_path / "copy", *options)  # again, in place
    copied = bundle.load(tmp_path / "copy")
    assert copied.encoder_digest() == original.encoder_digest()
    for name in ("weights", "bias"):
        got, wanted = getattr(copied.probe("my_tiles"), name), getattr(expected, name)
        np.testing.assert_allclose(got, wanted, rtol=0.02, atol=0.02 * np.abs(wanted).max())
    with client(tmp_path / "copy") as service:
        files = {"tile": ("tile.tif", tile(["forest"], 700))}
        assert service.post("/classify", files=files).json()["data"][0]["selected"] == ["forest"]


def test_the_packaged_bundle_is_copied_and_left_alone(single: Made, tmp_path: Path) -> None:
    packaged = bundle.load()
    train("probe", "-b", tmp_path / "mine", "--data", single.packed, "--pooling", "mean", *ALL)
    mine = bundle.load(tmp_path / "mine")
    assert {*mine.probe_names} == {*packaged.probe_names, "my_tiles"}
    assert mine.encoder_digest() == packaged.encoder_digest()
    assert bundle.load().digest == packaged.digest
    refused = ["probe", str(single.bundle), "-b", str(tmp_path / "mine"), "--data", str(single.packed)]
    result = CliRunner().invoke(landmoe_train, refused)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "was made from another network" in result.output


@pytest.mark.slow
def test_the_evaluation_measures_them(single: Made, tmp_path: Path) -> None:
    train("evaluate", single.network, "--data", single.packed, "-o", tmp_path, "--quick", *ALL)
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert [c["label"] for c in result["tasks"]["my_tiles"]["classes"]] == ["field", "forest", "water"]
    assert "'quarry'" in result["data"]["labels_left_out"][0]
    assert (tmp_path / "probes_my_tiles.png").exists()


def test_too_few_in_the_split_say_where_they_were_sought(single: Made) -> None:
    arguments = ["probe", single.network, "--data", single.packed, "-b", single.bundle]
    result = CliRunner().invoke(landmoe_train, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "no labels to fit a probe on in test (my_tiles: " in result.output
    assert "expected at least 30 in 5" in result.output
