"""Cards and evaluations join a bundle; its weights and probes stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model import bundle, checkpoint
from model.bundle import BundleError
from model.export import export
from tests.training.scenery import PREPROCESSING, TINY, eurosat
from training import reconstruction
from training.describe import describe
from training.heldout import read


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small one of the network that `exported` holds: reconstruction alone."""
    folder = tmp_path_factory.mktemp("data")
    eurosat(folder / "eurosat.npz", 3)
    made = checkpoint.initialise(TINY, 3, PREPROCESSING)
    errors = reconstruction.measure(made.model, read(folder, PREPROCESSING), limit=6)
    return {
        "data": {"seen_in_pretraining": False},
        "checkpoint": {"info": made.info, "config": made.config.to_dict()},
        "reconstruction": reconstruction.summarise(errors, 20),
        "tasks": {},
    }


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export(checkpoint.initialise(TINY, 3, PREPROCESSING), tmp_path / "bundle")
    return tmp_path / "bundle"


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_card_and_findings_are_in_the_bundle(
    exported: Path, evaluation: dict[str, Any], tmp_path: Path
) -> None:
    before = bundle.load(exported)
    card = written(tmp_path / "card.md", "# A network\n\nWhat it is not good for.\n")
    after = describe(exported, card=card, evaluation=written(tmp_path / "evaluation.json", evaluation))
    assert after.card == card.read_text()
    assert after.encoder_digest("fp32") == before.encoder_digest("fp32")
    found = after.metrics["evaluation"]["reconstruction"]
    whole = evaluation["reconstruction"]["all"]
    assert found["error"]["kriging"] == whole["error"]["kriging"]["all bands"]
    assert found["better_than"]["kriging"] == []  # it was never trained
    again = describe(exported, card=card)
    assert again.metrics == after.metrics


@pytest.mark.parametrize(
    ("seen", "where"),
    [
        (False, "held-out places;"),
        (True, "places that were seen in pretraining;"),
        (None, "places that may have been seen in pretraining;"),
    ],
)
def test_a_bundle_says_whether_its_figures_are_of_places_that_were_seen(
    exported: Path, evaluation: dict[str, Any], tmp_path: Path, *, seen: bool | None, where: str
) -> None:
    told = {**evaluation, "data": {"seen_in_pretraining": seen}}
    after = describe(exported, evaluation=written(tmp_path / "evaluation.json", told))
    assert after.metrics["evaluation"]["protocol"].startswith(where)


def test_an_evaluation_of_another_network_is_refused(
    exported: Path, evaluation: dict[str, Any], tmp_path: Path
) -> None:
    other = json.loads(json.dumps(evaluation))
    other["checkpoint"]["info"]["step"] = 77
    with pytest.raises(BundleError, match=r"of another network .* step 77, expected None"):
        describe(exported, evaluation=written(tmp_path / "e.json", other))
    for content in ("{", "[]", {"checkpoint": 1}, {"checkpoint": {"config": {}, "info": {}}}):
        with pytest.raises(BundleError, match=r"not the evaluation\.json"):
            describe(exported, evaluation=written(tmp_path / "e.json", content))
    assert "evaluation" not in bundle.load(exported).metrics


def test_files_that_cannot_be_read_are_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.md").write_bytes(b"\x89PNG\xff")
    for name in ("missing.md", "picture.md"):
        for given in ({"card": tmp_path / name}, {"evaluation": tmp_path / name}):
            with pytest.raises(BundleError, match=f"{name}: cannot be read as text") as refused:
                describe(exported, **given)
            assert "BundleError" not in str(refused.value)


def test_nothing_to_describe_with_is_refused(exported: Path) -> None:
    with pytest.raises(BundleError, match="give --card, --evaluation or both"):
        describe(exported)
