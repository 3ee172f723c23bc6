"""Export: a faithful encoder becomes a bundle, an unfaithful one becomes an error with figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
import pytest
import torch
from typer.testing import CliRunner

from model import bundle, checkpoint
from model import export as exporting
from model import parity as measuring
from model.bundle import BundleError
from model.checkpoint import Checkpoint
from model.config import SIZES, Preprocessing
from model.export import ExportError, export
from model.fused import FusedEncoder, fuse
from model.layers import Block
from model.parity import TOLERANCE, Parity, measure
from tests.model.networks import GOLDEN, SMALL, inputs, onnx_bytes, run, scrambled, session, unfused
from training.cli import app


@pytest.fixture(scope="module")
def small() -> Checkpoint:
    return scrambled()


def test_bundle_holds_what_the_checkpoint_knows(small: Checkpoint, tmp_path: Path) -> None:
    info = {
        "name": "meadow",
        "version": "2.0.1",
        "trained": True,
        "metrics": {"masked_error": 0.1},
        "card": "# Meadow\n",
        "data": {"licence": "CC0-1.0"},
    }
    statistics = replace(small.preprocessing, missing_metadata_trained=True, nodata_fill="band_mean")
    made = export(Checkpoint(small.model, statistics, info), tmp_path / "bundle")
    assert made == bundle.load(tmp_path / "bundle")
    assert (made.name, made.version, made.trained) == ("meadow", "2.0.1", True)
    assert (made.config, made.preprocessing) == (SMALL, statistics)
    assert (made.metrics, made.training) == ({"masked_error": 0.1}, {"data": {"licence": "CC0-1.0"}})
    assert made.card == "# Meadow\n"
    assert made.encoder_path().read_bytes() == onnx_bytes(small.model.encoder)
    dn, metadata = inputs(3)
    reference = unfused(small.model.encoder, dn, metadata)
    found = run(session(made.encoder_path()), dn, metadata)["tokens"]
    assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()


def test_measured_error_is_recorded(small: Checkpoint, tmp_path: Path) -> None:
    record = export(small, tmp_path / "bundle").parity["fp32"]
    assert 0 < record["max_relative_error"] <= record["tolerance"] == 1e-5
    assert record["batches"] == [1, 3, 8, 33]
    assert record["tiles"] >= 45
    assert record["by_output"].keys() == {"mean", "cls", "patch_mean", "patch_mean_std", "tokens"}
    assert record["runtime"] == f"onnxruntime {ort.__version__}"
    assert 0 <= record["max_batch_difference"] <= 1e-5
    assert 0 <= record["flipped_tiles"] <= record["close_routing_tiles"] <= record["tiles"]
    assert record["routing_decisions"] == record["tiles"] * SMALL.depth * SMALL.num_tokens


def test_untrained_network_says_so(tmp_path: Path) -> None:
    made = export(checkpoint.initialise(SMALL, 7), tmp_path / "bundle", name="try-me", version="0.0.1")
    assert (made.name, made.version, made.trained) == ("try-me", "0.0.1", False)
    assert "untrained" in made.card
    assert "seed 7" in made.card
    assert made.training == {"seed": 7}


def change(array: np.ndarray) -> np.ndarray:
    """One weight off by a hundredth of the largest."""
    changed = array.copy()
    changed.flat[changed.size // 2] += 0.01 * np.abs(array).max() + 1e-3
    return changed


def in_layer(part: str, field: str) -> Callable[[FusedEncoder], FusedEncoder]:
    def corrupt(fused: FusedEncoder) -> FusedEncoder:
        product = getattr(fused.layers[1], part)
        changed = replace(product, **{field: change(getattr(product, field))})
        layer = replace(fused.layers[1], **{part: changed})
        return replace(fused, layers=(fused.layers[0], layer, *fused.layers[2:]))

    return corrupt


CORRUPTIONS: dict[str, Callable[[FusedEncoder], FusedEncoder]] = {
    **{
        f"{part}.{field}": in_layer(part, field)
        for part in ("qkv", "out", "experts_in", "experts_out")
        for field in ("weight", "bias")
        if (part, field) != ("qkv", "bias")  # its middle is a key's bias, which softmax cancels
    },
    "mean": lambda fused: replace(fused, mean=change(fused.mean)),
    "patches": lambda fused: replace(fused, patches=change(fused.patches)),
    "metadata": lambda fused: replace(fused, metadata=fused.metadata[::-1].copy()),
    "cls": lambda fused: replace(fused, metadata_constant=change(fused.metadata_constant)),
    "heads": lambda fused: replace(
        fused,
        layers=(
            replace(
                fused.layers[0],
                qkv=replace(fused.layers[0].qkv, weight=np.roll(fused.layers[0].qkv.weight, 4, axis=1)),
            ),
            *fused.layers[1:],
        ),
    ),
    "nan": lambda fused: replace(fused, patch_constant=fused.patch_constant * np.float32("nan")),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_corrupted_weight_is_refused_with_figures(
    what: str, small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "fuse", lambda encoder: CORRUPTIONS[what](fuse(encoder)))
    with pytest.raises(ExportError, match=r"no bundle written: \d+ of \d+ tiles differ .* more than 1e-05"):
        export(small, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parity", "passed"),
    [
        (Parity(tiles=45, decisions=10_000), True),
        (Parity(), False),  # nothing measured
        (Parity(tiles=45, decisions=10_000, failed=1), False),
        (Parity(tiles=45, decisions=10_000, close_routing=9, close_decisions=9, flipped=3), True),
        (Parity(tiles=45, decisions=10_000, close_routing=10, close_decisions=10), False),
    ],
)
def test_explained_flips_pass_and_failures_do_not(parity: Parity, passed: bool) -> None:
    assert parity.passed is passed


def test_flip_is_explained_by_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One close decision is made to fall otherwise: excused. Without a close decision it is a failure."""
    original = scrambled(seed=3)
    encoder = original.model.encoder
    gate = cast(Block, encoder.layers[1]).gate
    seen: list[torch.Tensor] = []
    hook = gate.Wg.register_forward_hook(lambda _m, _i, logits: seen.append(logits.flatten(0, 1)))
    measure(encoder, onnx_bytes(encoder))
    hook.remove()
    top, index = torch.cat(seen).topk(3, dim=-1)
    margin, token = (top[:, 1] - top[:, 2]).min(dim=0)

    nudged = scrambled(seed=3)
    with torch.no_grad():
        cast(Block, nudged.model.encoder.layers[1]).gate.Wg.bias[index[token, 2]] += 1.5 * margin + 1e-6
    monkeypatch.setattr(measuring, "CLOSE_ROUTING", 10 * float(margin) + 1e-5)
    parity = measure(encoder, onnx_bytes(nudged.model.encoder), tolerance=2e-4)
    assert parity.flipped >= 1
    assert parity.failed == 0
    assert parity.max_relative_error <= 2e-4
    assert parity.close_decisions >= parity.close_routing >= parity.flipped

    monkeypatch.setattr(measuring, "CLOSE_ROUTING", 0.0)
    assert measure(encoder, onnx_bytes(nudged.model.encoder), tolerance=2e-4).failed >= 1


def test_network_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    """Second and third expert are equally good for every token of a layer: rounding would rule."""
    undecided = scrambled(seed=2)
    with torch.no_grad():
        gate = cast(Block, undecided.model.encoder.layers[2]).gate
        gate.Wg.weight.zero_()
        gate.Wg.bias.copy_(torch.tensor([3.0, 1.0, 1.0, 0.0, 0.0]))
    with pytest.raises(ExportError, match=r"\d+ of \d+ routing decisions have a margin under 1e-05"):
        export(undecided, tmp_path / "bundle")


def test_default_bundle_is_what_it_says() -> None:
    default = bundle.load()
    assert replace(default.config, dropout=SIZES["S"].dropout) == SIZES["S"]  # that matters in training alone
    assert default.precisions == ("fp32",)
    assert default.parity["fp32"]["max_relative_error"] <= TOLERANCE
    assert default.encoder_path().stat().st_size < 12e6
    if not default.trained:
        assert "untrained" in default.card
        again = checkpoint.initialise(SIZES["S"], default.training["seed"], Preprocessing())
        dn, metadata = inputs(2)
        reference = unfused(again.model.encoder, dn, metadata)
        found = run(session(default.encoder_path()), dn, metadata)["tokens"]
        assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()


def test_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    weights, folder = tmp_path / "tiny.safetensors", tmp_path / "bundle"
    stem = GOLDEN / "reference_tiny"
    arguments = ["import-reference", f"{stem}.pth", "-o", str(weights), "--config", f"{stem}.json"]
    assert runner.invoke(app, arguments).exit_code == 0

    done = runner.invoke(app, ["export", str(weights), "-o", str(folder), "--name", "tiny"])
    assert done.exit_code == 0, done.output
    made = bundle.load(folder)
    assert made.digest in done.output
    assert "tolerance 1e-05" in done.output
    with np.load(f"{stem}.npz") as golden:
        found = run(session(made.encoder_path()), golden["dn"], golden["metadata"])["tokens"]
        assert np.abs(found - golden["tokens"]).max() <= 2e-5 * np.abs(golden["tokens"]).max()


def test_command_line_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    failed = runner.invoke(app, ["export", str(tmp_path / "none.safetensors"), "-o", str(tmp_path / "b")])
    assert failed.exit_code == 1
    assert "no such file" in failed.output

    weights, occupied = tmp_path / "w.safetensors", tmp_path / "thesis"
    checkpoint.save(weights, checkpoint.initialise(SMALL, 0))
    occupied.mkdir()
    (occupied / "chapter.txt").write_text("years of work")
    failed = runner.invoke(app, ["export", str(weights), "-o", str(occupied)])
    assert failed.exit_code == 1
    assert "is not a bundle; it is left alone" in failed.output

    monkeypatch.setattr(exporting, "fuse", lambda encoder: CORRUPTIONS["patches"](fuse(encoder)))
    failed = runner.invoke(app, ["export", str(weights), "-o", str(tmp_path / "b")])
    assert failed.exit_code == 1
    assert "error: no bundle written" in failed.output
    assert not (tmp_path / "b").exists()


def test_name_that_does_not_fit_is_refused(small: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="name is 'two words'"):
        export(small, tmp_path / "bundle", name="two words")


def test_every_part_of_the_fused_encoder_is_covered_above() -> None:
    fields = {f.name for f in dataclasses.fields(FusedEncoder)} - {"config", "layers"}
    assert fields == {"mean", "patches", "patch_constant", "metadata", "metadata_constant"}


def test_what_the_network_gives_for_the_tile_alone_is_excused_where_a_decision_is_close() -> None:
    """Rounding depends on the batch in the network itself, which may have changed the experts already."""
    encoder = scrambled(seed=3).model.encoder
    dn, metadata = next(measuring.batches(encoder.config))
    alone, margins = measuring._reference(encoder, dn, metadata)
    far = np.ones_like(margins[0])
    close = far.copy()
    close[0, 0] = 0
    assert measuring._is_flip(encoder, dn, metadata, alone, close, 1e-5)
    assert not measuring._is_flip(encoder, dn, metadata, alone, far, 1e-5)
    other = {name: values + 1 for name, values in alone.items()}
    assert not measuring._is_flip(encoder, dn, metadata, other, close, 1e-5)
