"""The guesses that a network has to beat, and how errors are added up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.moe_mae import MoEMAE
from tests.training.scenery import PREPROCESSING, TINY, eurosat
from training import reconstruction
from training.heldout import EvaluationError, Tiles, read

PATCH = 4


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    noise = np.random.default_rng(0).random((1, 100), dtype=np.float32)
    found = reconstruction.masked(noise, 0.75).reshape(10, 10)
    assert found.sum() == 75
    assert not found.ravel()[noise[0].argsort()[:25]].any()  # the smallest stay visible, as in the network
    return found


def ramp() -> np.ndarray:
    """Seven bands that are planes with different slopes."""
    row, column = np.mgrid[:40, :40] / 40
    return np.stack([band + (band - 3) * row + 0.5 * band * column for band in range(7)])


def test_kriging_and_linear_interpolation_are_exact_on_ramps(mask: np.ndarray) -> None:
    guesses = reconstruction.interpolators(mask, PATCH)
    z = ramp()
    np.testing.assert_allclose(guesses["kriging"](z), z, atol=1e-6)  # everywhere
    np.testing.assert_allclose(guesses["kriging of blocks"](z), z, atol=1e-6)
    linear = guesses["linear interpolation"](z)
    inside = np.s_[:, 12:28, 12:28]  # within the triangles; outside the nearest pixel is taken
    np.testing.assert_allclose(linear[inside], z[inside], atol=1e-9)


def test_the_mean_is_that_of_the_visible_pixels_of_each_band(mask: np.ndarray) -> None:
    z = np.random.default_rng(1).normal(size=(7, 40, 40))
    seen = ~np.kron(mask, np.ones((PATCH, PATCH), dtype=bool))
    guess = reconstruction.interpolators(mask, PATCH)["mean of visible patches"](z)
    np.testing.assert_allclose(guess[:, 0, 0], z[:, seen].mean(axis=1))
    assert (np.ptp(guess, axis=(1, 2)) < 1e-12).all()


def test_no_guess_sees_what_is_hidden_and_those_from_pixels_keep_them(mask: np.ndarray) -> None:
    z = np.random.default_rng(2).normal(size=(7, 40, 40))
    hidden = np.kron(mask, np.ones((PATCH, PATCH), dtype=bool))
    changed = z.copy()
    changed[:, hidden] = 99
    for name, guess in reconstruction.interpolators(mask, PATCH).items():
        np.testing.assert_array_equal(guess(z), guess(changed), err_msg=name)
        if name in ("linear interpolation", "kriging"):  # the other two know means alone
            np.testing.assert_allclose(guess(z)[:, ~hidden], z[:, ~hidden], atol=1e-8)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    folder = tmp_path_factory.mktemp("data")
    eurosat(folder / "eurosat.npz", 3)
    return read(folder, PREPROCESSING)


def test_a_networks_reconstruction_lies_where_its_patches_do() -> None:
    model = checkpoint.initialise(TINY, 0, PREPROCESSING).model
    rng = np.random.default_rng(3)
    dn = rng.integers(1, 65535, size=(2, 7, 40, 40), dtype=np.uint16)
    noise = rng.random((2, 100), dtype=np.float32)
    out = reconstruction.reconstruct(model, dn, np.zeros((2, 4, 2), np.float32), noise)
    with torch.inference_mode():
        patches = model(torch.from_numpy(dn), torch.zeros(2, 4, 2), torch.from_numpy(noise)).predicted
    expected = patches[1, 23].numpy().reshape(7, 4, 4)  # row 2, column 3
    np.testing.assert_allclose(out[1, :, 8:12, 12:16], expected, rtol=1e-6)


def test_relative_targets_come_back_as_z_scores_and_miss_no_level() -> None:
    """A decoder that predicts nothing but 0 gives the mean of the visible, measured pixels of each band."""
    model = MoEMAE(TINY, PREPROCESSING, targets="visible").eval()
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.zero_()
    rng = np.random.default_rng(4)
    dn = rng.integers(8_000, 12_000, size=(2, 7, 40, 40), dtype=np.uint16)
    noise = rng.random((2, 100), dtype=np.float32)
    valid = rng.random((2, 40, 40)) < 0.8
    dn = np.where(valid[:, None], dn, np.uint16(60_000))
    out = reconstruction.reconstruct(model, dn, np.zeros((2, 4, 2), np.float32), noise, valid=valid)
    masks = reconstruction.masked(noise, 0.75).reshape(2, 10, 10)
    z = (dn - model.encoder.mean.numpy()) / model.encoder.std.numpy()
    for i in range(2):
        seen = ~np.kron(masks[i], np.ones((PATCH, PATCH), dtype=bool)) & valid[i]
        expected = np.broadcast_to(z[i][:, seen].mean(axis=1)[:, None, None], (7, 40, 40))
        np.testing.assert_allclose(out[i], expected, atol=1e-5)


def test_errors_of_the_guesses_are_small_where_tiles_are_flat(tiles: Tiles) -> None:
    model = checkpoint.initialise(TINY, 0, PREPROCESSING).model
    errors = reconstruction.measure(model, tiles, limit=12)
    found = reconstruction.summarise(errors, 50)["all"]
    assert isinstance(found, dict)
    noise = 300 / 6000  # DN of the texture through the deviation of a band
    flat = found["error"]["mean of visible patches"]
    assert flat["SR_B1"]["value"] == pytest.approx(noise**2, rel=0.2)
    assert flat["all bands"]["low"] <= flat["all bands"]["value"] <= flat["all bands"]["high"]
    untrained = found["model_minus"]["mean of visible patches"]["all bands"]
    assert untrained["low"] > 0  # an untrained network is worse than the mean, and the interval says so
    repeated = reconstruction.measure(model, tiles, limit=12)
    for name, values in errors.squared.items():
        np.testing.assert_array_equal(values, repeated.squared[name])


def test_the_start_of_a_kriged_decoder_is_the_kriging_of_blocks(tiles: Tiles) -> None:
    """With a last layer of zeros a network reconstructs just what it was given."""
    model = MoEMAE(TINY, PREPROCESSING, targets="kriged").eval()
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.zero_()
    errors = reconstruction.measure(model, tiles, limit=12).squared
    np.testing.assert_allclose(errors["model, metadata off"], errors["kriging of blocks"], rtol=2e-3)
    assert not np.allclose(errors["kriging"], errors["kriging of blocks"], rtol=2e-3)


def test_an_estimated_coastal_band_does_not_count(tiles: Tiles) -> None:
    columns = dict(tiles.columns)
    columns["b1_estimated"] = np.ones(len(tiles), np.bool_)
    estimated = Tiles(columns, tiles.pixels, tiles.shard, tiles.row, tiles.preprocessing, tiles.seen)
    model = checkpoint.initialise(TINY, 0, PREPROCESSING).model
    plain, without = (reconstruction.measure(model, t, limit=6) for t in (tiles, estimated))
    table = reconstruction.summarise(without, 20)["all"]
    assert isinstance(table, dict)
    kriging = table["error"]["kriging"]
    assert kriging["SR_B1"] == {"value": None, "low": None, "high": None}
    expected = plain.squared["kriging"][:, 1:].mean()
    assert kriging["all bands"]["value"] == pytest.approx(expected)


def test_every_place_counts_once() -> None:
    values = np.array([[1.0] * 7, [3.0] * 7, [10.0] * 7])
    means = reconstruction._by_place(values, np.array([4, 4, 9]))
    np.testing.assert_array_equal(means[:, 0], [2, 10])


def test_tiles_with_holes_are_not_looked_at(tiles: Tiles) -> None:
    columns = {**tiles.columns, "valid_fraction": np.full(len(tiles), 0.9, np.float32)}
    holed = Tiles(columns, tiles.pixels, tiles.shard, tiles.row, tiles.preprocessing, tiles.seen)
    with pytest.raises(EvaluationError, match="none of 30 tiles is without invalid pixels"):
        reconstruction.measure(checkpoint.initialise(TINY, 0).model, holed, limit=5)


def test_reading_a_folder_without_data_says_so(tmp_path: Path) -> None:
    from training.shards import PackError

    with pytest.raises(PackError, match=r"neither a packed set \(manifest.json\) nor a folder of .npz sets"):
        read(tmp_path, PREPROCESSING)
