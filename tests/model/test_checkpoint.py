"""Checkpoints: what is written comes back, and what does not fit is named."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model import checkpoint
from model.checkpoint import CheckpointError
from model.config import ConfigError, Preprocessing
from model.published import import_reference, read_config, to_published
from tests.model.test_moe_mae import GOLDEN, SMALL

TINY = GOLDEN / "reference_tiny.pth"


@pytest.fixture
def published_state() -> dict[str, torch.Tensor]:
    model = checkpoint.initialise(SMALL, seed=1).model
    return {name: t.clone() for name, t in to_published(model.state_dict(), SMALL).items()}


def test_round_trip(tmp_path: Path) -> None:
    statistics = Preprocessing(mean=(1.0,) * 7, std=(2.0,) * 7, nodata_fill="band_mean")
    written = replace(checkpoint.initialise(SMALL, 3, statistics), info={"trained": False, "note": "ß"})
    checkpoint.save(tmp_path / "a.safetensors", written)
    read = checkpoint.load(tmp_path / "a.safetensors")
    assert (read.config, read.preprocessing, read.info) == (SMALL, statistics, written.info)
    assert not read.model.training
    torch.testing.assert_close(read.model.state_dict(), written.model.state_dict(), rtol=0, atol=0)
    assert torch.equal(read.model.encoder.mean.flatten(), torch.ones(7))


def test_the_targets_of_the_decoder_are_part_of_the_file(tmp_path: Path) -> None:
    found = checkpoint.initialise(SMALL, 0)
    assert found.model.targets == "absolute"
    path = tmp_path / "a.safetensors"
    found.model.targets = "visible"
    checkpoint.save(path, found)
    assert checkpoint.load(path).model.targets == "visible"
    for targets in (None, "sideways"):  # None: a file from before there was a choice
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[checkpoint.HEADER_KEY])
        header.pop("targets")
        header |= {"targets": targets} if targets else {}
        other = tmp_path / f"{targets}.safetensors"
        save_file(found.model.state_dict(), other, {checkpoint.HEADER_KEY: json.dumps(header)})
    assert checkpoint.load(tmp_path / "None.safetensors").model.targets == "absolute"
    with pytest.raises(
        CheckpointError, match=r"targets 'sideways'; expected one of \('absolute', 'visible', 'kriged'\)"
    ):
        checkpoint.load(tmp_path / "sideways.safetensors")


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (checkpoint.initialise(SMALL, 0).model.state_dict() for _ in range(2))
    assert torch.rand(1) == expected
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is a folder; expected a "):
        checkpoint.load(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoint.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="import-reference"):
        checkpoint.load(tmp_path / "foreign")
    header = json.dumps({"format": 99})
    save_file({"a": torch.zeros(1)}, tmp_path / "newer", {checkpoint.HEADER_KEY: header})
    with pytest.raises(CheckpointError, match="format 99, this release reads 1"):
        checkpoint.load(tmp_path / "newer")
    save_file({"a": torch.zeros(1)}, tmp_path / "broken", {checkpoint.HEADER_KEY: "[]"})
    with pytest.raises(CheckpointError, match="header cannot be read"):
        checkpoint.load(tmp_path / "broken")


def test_the_folder_of_a_run_says_which_checkpoints_it_has(tmp_path: Path) -> None:
    for name in ("best", "last"):
        checkpoint.save(tmp_path / f"{name}.safetensors", checkpoint.initialise(SMALL, seed=1))
    with pytest.raises(CheckpointError, match=r"expected one of its files, .*best.safetensors or .*last"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1.0] * 6, "std": [1.0] * 6}, "statistics of 6 bands for 7 input bands"),
        ({"mean": ["a"] * 7}, "the header cannot be read"),
        ({"version": 99}, "made for preprocessing version 99; this program knows versions up to"),
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    made = checkpoint.initialise(SMALL, seed=1)
    checkpoint.save(path, made)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[checkpoint.HEADER_KEY])
    header["preprocessing"] |= changes
    save_file(made.model.state_dict(), path, metadata={checkpoint.HEADER_KEY: json.dumps(header)})
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)


def test_a_folder_is_no_checkpoint_to_write(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        checkpoint.save(tmp_path, checkpoint.initialise(SMALL, seed=1))
    assert not list(tmp_path.iterdir())


def test_damage_anywhere_in_a_pth_is_one_error(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3), "b": 1.5}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pth").read_bytes()
    for at in range(0, len(data) - 12, 3):  # the last twelve bytes are the tensor's values
        (tmp_path / "b.pth").write_bytes(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            import_reference(tmp_path / "b.pth", SMALL)


def test_published_layout_and_back(published_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"epoch": 7, "model_state": published_state, "best_train_loss": 0.5}, tmp_path / "a.pth")
    read = import_reference(tmp_path / "a.pth", SMALL, published=True)
    torch.testing.assert_close(
        read.model.state_dict(), checkpoint.initialise(SMALL, 1).model.state_dict(), rtol=0, atol=0
    )
    assert read.preprocessing.hour_convention == "first_digit"
    assert not read.preprocessing.missing_metadata_trained
    assert read.info["trained"] is True
    assert read.info["epoch"] == 7


def test_every_published_size_is_recognised(tmp_path: Path) -> None:
    from model.config import SIZES

    for size, config in SIZES.items():
        state = to_published(checkpoint.initialise(config, 0).model.state_dict(), config)
        torch.save(state, tmp_path / f"{size}.pth")
        assert import_reference(tmp_path / f"{size}.pth").config == config


def test_what_does_not_fit_is_named(published_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"

    def refused(match: str, **change: torch.Tensor | None) -> None:
        state = {**published_state, **{k.replace("__", "."): v for k, v in change.items()}}
        torch.save({"model_state": {k: v for k, v in state.items() if v is not None}}, path)
        with pytest.raises(CheckpointError, match=match):
            import_reference(path, SMALL)

    refused(r"missing: encoder\.cls_token \[1, 1, 16\]", encoder__cls_token=None)
    refused(r"surplus: extra \[2\]", extra=torch.zeros(2))
    refused(r"wrong shape: mask_token \[3\], expected \[1, 1, 12\]", mask_token=torch.zeros(3))
    refused(r"not finite: mask_token", mask_token=torch.full((1, 1, 12), torch.nan))
    refused(
        r"experts\.1\.V\.bias differs from encoder\.layers\.0\.moe\.experts\.0\.V\.bias",
        encoder__layers__0__moe__experts__1__V__bias=torch.ones(12),
    )
    refused(r"patch_embed\.bias differs from encoder\.patch_proj\.bias", patch_embed__bias=torch.ones(16))


def test_unknown_size_asks_for_a_config() -> None:
    with pytest.raises(CheckpointError, match=r"24 is none of the published sizes .*--config"):
        import_reference(TINY)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_code_in_a_pth_does_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"model_state": Hostile()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds other objects"):
        import_reference(tmp_path / "a.pth", SMALL)
    assert "never" not in capfd.readouterr().out
    (tmp_path / "b.pth").write_bytes(TINY.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        import_reference(tmp_path / "b.pth", SMALL)
    torch.save([1, 2], tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="expected a dict, found list"):
        import_reference(tmp_path / "c.pth", SMALL)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense", "not a readable JSON file"),
        ("[1]", "expected an object, found list"),
        ('{"embed_dim": 24, "layers": 3}', r"unknown \['layers'\], missing \['depth'"),
    ],
)
def test_configs_that_cannot_be_read(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_config(tmp_path / "config.json")


def test_configs_come_in_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_text(json.dumps(SMALL.to_dict()))
    assert read_config(tmp_path / "ours.json") == SMALL
    tiny = read_config(GOLDEN / "reference_tiny.json")
    assert (tiny.first_hidden, tiny.decoder_dim, tiny.decoder_hidden) == (24, 24, 12)


def test_command_line(tmp_path: Path) -> None:
    def landmoe_train(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = str(tmp_path / "tiny.safetensors")
    done = landmoe_train(
        "import-reference", str(TINY), "-o", out, "--config", str(TINY.with_suffix(".json")), "--published"
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(Path(out)).preprocessing.hour_convention == "first_digit"
    wrong = landmoe_train("import-reference", str(TINY), "-o", out, "--size", "S")
    assert wrong.returncode == 1
    assert "error:" in wrong.stderr
    assert "expected [1, 105, 144]" in wrong.stderr
