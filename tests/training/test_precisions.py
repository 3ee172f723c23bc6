"""What precision=fast costs, with encoders whose difference is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import bundle as bundles
from model import openvino_session
from model.config import Preprocessing
from model.native import session as native
from training import precisions
from training.heldout import EvaluationError, Tiles
from training.precisions import COMPARED, Exact, compare, compare_encoders, lines

CLASSES = ("Forest", "River", "Residential")


class Bands:
    """Embeds a tile as its bands' means, in whole numbers of `step`."""

    def __init__(self, step: float, offset: float = 0) -> None:
        self.step, self.offset = step, offset

    def run(
        self, dn: NDArray[np.uint16], metadata: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        assert len(dn) == len(metadata) <= precisions.BATCH
        means = dn.mean(axis=(2, 3)) / 1e4 - 1
        values = (np.round(means / self.step) * self.step + self.offset).astype(np.float32)
        return [values for _ in outputs]


@pytest.fixture
def tiles() -> Tiles:
    """Of three classes that differ in brightness, in twenty places."""
    rng = np.random.default_rng(0)
    count = 60
    kind = rng.integers(0, 3, count)
    pixels = rng.integers(0, 500, (count, 7, 40, 40)) + 8_000 + 3_000 * kind[:, None, None, None]
    columns = {
        "encodings": np.zeros((count, 4, 2), np.float32),
        "labels": np.array([CLASSES[k] for k in kind]),
        "place": np.arange(count, dtype=np.int32) // 3,
        "source": np.full(count, "made"),
    }
    rows = np.arange(count)
    return Tiles(columns, (pixels.astype(np.uint16),), np.zeros_like(rows), rows, Preprocessing(), False)


def test_the_same_encoder_costs_nothing(tiles: Tiles) -> None:
    result = compare_encoders(Bands(1e-6), Bands(1e-6), tiles)
    assert result["tiles"] == 60
    for name in COMPARED:
        assert result["cosine"][name]["least"] == pytest.approx(1)
        assert result["cosine"][name]["below"] == 0
        for score in result["tasks"]["eurosat-10"]["scores"][name].values():
            assert score["exact"] == score["fast"]
            assert score["difference"] == 0
    assert result["tasks"]["eurosat-10"]["scores"]["mean"]["accuracy"]["exact"] == 1  # the classes are plain


def test_a_coarse_encoder_is_told_by_its_cosines_and_scores(tiles: Tiles) -> None:
    """Probes come from exact embeddings; shifted ones must lose by them, not be fitted anew."""
    result = compare_encoders(Bands(1e-6), Bands(1e-6, offset=0.6), tiles)
    cosines = result["cosine"]["mean"]
    assert cosines["least"] < cosines["mean"] < 1
    assert cosines["below"] > 0
    accuracy = result["tasks"]["eurosat-10"]["scores"]["mean"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(accuracy["fast"] - accuracy["exact"])
    assert accuracy["difference"] < -0.2


def test_an_embedding_that_is_not_finite_is_below_every_bound(tiles: Tiles) -> None:
    sample = {name: np.ones((3, 4), np.float32) for name in COMPARED}
    broken = {name: np.full((3, 4), np.nan, np.float32) for name in COMPARED}
    assert precisions._cosines(sample, broken)["cls"]["below"] == 1


def test_lines_say_both_scores(tiles: Tiles) -> None:
    text = "\n".join(lines(compare_encoders(Bands(1e-6), Bands(0.05), tiles)))
    assert "cosine of bf16 with fp32, 60 tiles" in text
    assert "eurosat-10, 60 tiles" in text
    assert "accuracy 1.0000 → " in text


def test_the_exact_encoder_is_that_of_the_bundle() -> None:
    encoder = Exact(bundles.load().encoder_path().read_bytes())
    dn = np.full((2, 7, 40, 40), 10_000, np.uint16)
    mean, cls = encoder.run(dn, np.zeros((2, 4, 2), np.float32), ("mean", "cls"))
    assert mean.shape == cls.shape == (2, 144)


def test_the_exact_encoder_has_the_threads_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    encoder = Exact(bundles.load().encoder_path().read_bytes())
    assert encoder._session.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize(("kernels", "runtime"), [(True, "kernels"), (False, "OpenVINO")])
def test_both_encoders_share_the_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiles: Tiles, kernels: bool, runtime: str
) -> None:
    asked: list[tuple[str, int]] = []

    def session(encoder: object, *, chunk: int, threads: int) -> Bands:
        asked.append(("kernels", threads))
        return Bands(1e-6)

    def openvino(content: bytes, *, threads: int, streams: int, fixed: int) -> Bands:
        asked.append(("OpenVINO", threads))
        return Bands(1e-6)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(native, "unusable", lambda numbers: None)
    monkeypatch.setattr(openvino_session, "unusable", lambda: None)
    monkeypatch.setattr(precisions, "Exact", lambda _: Bands(1e-6))
    monkeypatch.setattr(precisions, "NativeEncoder", lambda *_: None)
    monkeypatch.setattr(precisions, "NativeSession", session)
    monkeypatch.setattr(precisions, "OpenVinoSession", openvino)
    monkeypatch.setattr(precisions, "read", lambda *_: tiles)
    result = compare(bundles.load(), tmp_path, kernels=kernels)
    assert (result["tiles"], result["fast"]) == (60, runtime)
    assert asked == [(runtime, 3)]


def test_without_bf16_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "unusable", lambda numbers: f"no kernels in {numbers}")
    monkeypatch.setattr(openvino_session, "unusable", lambda: "no such instructions")
    with pytest.raises(EvaluationError, match="'fast' on this CPU: no kernels in bf16, and no such"):
        compare(bundles.load(), tmp_path)
