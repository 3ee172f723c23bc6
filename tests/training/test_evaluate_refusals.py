"""What cannot be evaluated is said before the work, and what could not be measured does not end it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from model import checkpoint
from model.checkpoint import Checkpoint
from model.labels import EUROSAT_10
from tests.training.packed import packed
from tests.training.scenery import PREPROCESSING, TINY, eurosat, scene_with_cover
from training import evaluate
from training.cli import app
from training.evaluate import Settings
from training.frozen import of_checkpoint
from training.heldout import read
from training.shards import PackError


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    made = checkpoint.initialise(TINY, 3, PREPROCESSING)
    checkpoint.save(path, made)
    return path, made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    eurosat(folder / "eurosat.npz")
    return folder


def test_scene_and_land_cover_belong_together(
    found: tuple[Path, Checkpoint], data: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        app, ["evaluate", str(found[0]), "--data", str(data), "-o", str(tmp_path), "--scene", "x.tif"]
    )
    assert result.exit_code == 1
    assert "--scene and --land-cover belong together" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--scene": "gone.tif"}, "gone.tif: cannot be read"),
        ({"--land-cover": "gone.tif"}, "gone.tif: cannot be read"),
        ({"--land-cover": "nowhere.tif"}, "the land cover has no coordinate system"),
        ({"--scene": "cover.tif"}, "cover.tif has 1 bands of int16; expected the seven as DN, uint16"),
        (
            {"--scene": "30/scene.tif"},
            "30/scene.tif: the raster is 30 x 30 px and has no whole 40 x 40 window",
        ),
        (
            {"--scene": "60/scene.tif"},
            "60/scene.tif: the windows under the land cover (1) are too few or too close",
        ),
        ({"--scene-time": "yesterday"}, "--scene-time: datetime 'yesterday' cannot be read"),
    ],
)
def test_a_scene_that_cannot_be_used_is_named_before_the_work(
    found: tuple[Path, Checkpoint],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    message: str,
) -> None:
    scene_with_cover(tmp_path)
    for side in (30, 60):
        (tmp_path / str(side)).mkdir()
        scene_with_cover(tmp_path / str(side), rows=side, columns=side)
    nowhere = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint8"}
    with rasterio.open(tmp_path / "nowhere.tif", "w", **nowhere, transform=rasterio.Affine(9, 0, 0, 0, 9, 0)):
        pass
    monkeypatch.setattr(evaluate, "compare", None)
    monkeypatch.chdir(tmp_path)
    options = {"--scene": "scene.tif", "--land-cover": "cover.tif", **change}
    arguments = ["evaluate", str(found[0]), "--data", str(data), "-o", "out", "--quick"]
    result = CliRunner().invoke(app, [*arguments, *(part for pair in options.items() for part in pair)])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_tiles_that_all_have_holes_are_named_before_the_work(
    found: tuple[Path, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eurosat(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as archive:
        columns = dict(archive)
    columns["x"][:, :, 0, 0] = 0
    (tmp_path / "holed").mkdir()
    np.savez(tmp_path / "holed/a.npz", **columns)
    monkeypatch.setattr(evaluate, "compare", None)
    arguments = ["evaluate", found[0], "--data", tmp_path / "holed", "-o", tmp_path / "out", "--quick"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "is without invalid pixels" in result.output


@pytest.mark.parametrize("command", ["evaluate", "figures"])
def test_a_file_where_the_folder_is_to_be_is_named_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("")
    result = CliRunner().invoke(app, [command, "unread.safetensors", "--data", ".", "-o", "taken"])
    assert result.exit_code == 2
    assert "'taken' is a file" in result.output


@pytest.mark.slow
def test_labels_of_one_place_each_leave_retrieval_open(
    found: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    number = np.arange(40)
    pixels = np.random.default_rng(0).integers(7_000, 20_000, (40, 7, 40, 40)).astype(np.uint16)
    at = 10.0 * (number // 8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/a.npz", x=pixels, label=np.array(EUROSAT_10)[number // 8], lat=at, lon=at)
    arguments = ["evaluate", found[0], "--data", tmp_path / "data", "-o", tmp_path / "out", "--quick"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["tasks"]["eurosat-10"]["retrieval"]["chance"] is None
    assert "No label occurs in two places" in (tmp_path / "out/evaluation.md").read_text()


@pytest.mark.parametrize(
    ("info", "seen"),
    [
        ({"recipe": {"data": {"split": "train"}}}, False),
        ({"recipe": {"data": {"split": None}}}, True),
        ({"recipe": {"data": {"split": "test"}}}, True),
        ({"recipe": {"data": {"split": "train"}}, "encoder": {"recipe": {"data": {"split": None}}}}, True),
        ({"trained": False}, False),
        ({"trained": True}, None),  # imported
        ({"recipe": {"data": {"split": "train"}}, "packed": {"shards": "other"}}, None),
    ],
)
def test_what_was_seen_is_what_the_recipe_trained_on(
    tmp_path: Path, info: dict[str, Any], seen: bool | None
) -> None:
    whole = packed(tmp_path, validation=0.0, test=1.0)
    made = checkpoint.initialise(TINY, 3)
    found = of_checkpoint(Checkpoint(made.model, made.preprocessing, info))
    result = evaluate.evaluate(found, whole.path, settings=Settings.quick(), quiet=True)
    assert result["data"]["seen_in_pretraining"] is seen


def test_a_split_without_tiles_is_named_with_those_that_have_some(tmp_path: Path) -> None:
    packed(tmp_path)
    told = r"no tile in test; its tiles by split: train \d+, validation \d+ \(--split"
    with pytest.raises(PackError, match=told):
        read(tmp_path / "packed", PREPROCESSING)
