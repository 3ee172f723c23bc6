"""How well masked patches are reconstructed, beside guesses that need no network.

Errors are squared differences of z-scores. Only tiles without invalid pixels are looked at, and a coastal
band that was computed from the others does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator, RBFInterpolator

from model.bands import BANDS
from model.kriging import NUGGET, block_parts
from model.moe_mae import MASK_RATIO, MoEMAE, patches_kept
from training.embeddings import METADATA, Advance, with_metadata
from training.heldout import EvaluationError, Tiles
from training.metrics import Estimate, resamples

FloatArray = NDArray[np.float64]

MODEL: tuple[str, ...] = tuple(f"model, metadata {m}" for m in METADATA)
BASELINES = ("mean of visible patches", "linear interpolation", "kriging of blocks", "kriging")
BATCH = 16
PER_PLACE = 8  # tiles: a scene cut into hundreds would outweigh all other places
MASKS = 16  # different ones; a tile sees one of them


@dataclass(frozen=True)
class Errors:
    """Mean squared error over the masked values of every tile and band."""

    squared: dict[str, FloatArray]  # (N, 7) z-scores, NaN where the band is estimated; by method
    tiles: Tiles  # N


@dataclass(frozen=True)
class Interpolator:
    """A guess of all pixels of a tile from the visible ones: one linear operator for all bands."""

    operator: FloatArray  # (S * S, visible pixels)
    visible: NDArray[np.int64]  # flat pixel numbers

    def __call__(self, z: FloatArray) -> FloatArray:
        """From z-scores (7, S, S) to the guessed (7, S, S)."""
        flat = z.reshape(len(z), -1)
        return (flat[:, self.visible] @ self.operator.T).reshape(z.shape)


def interpolators(mask: NDArray[np.bool_], patch: int) -> dict[str, Interpolator]:
    """The guesses for one mask.

    `linear interpolation`: between the visible pixels on their Delaunay triangles, the nearest one outside of
    them. `kriging`: a linear variogram with a linear trend (radial basis function -r with a plane), which
    extends linear ramps over the whole tile and is as a rule the best linear guess. `kriging of blocks`: the
    same from the means of quarters of the visible patches, which is what a network with targets `kriged` is
    given: what it is better by is its own.

    Args:
        mask: bool (grid, grid), True = masked.
        patch: px, a side.
    """
    pixels = np.kron(mask, np.ones((patch, patch), dtype=bool))
    everywhere = np.argwhere(np.ones_like(pixels)).astype(np.float64)
    seen = np.argwhere(~pixels).astype(np.float64)
    visible = np.flatnonzero(~pixels)
    identity = np.eye(len(visible))
    mean = np.full((pixels.size, len(visible)), 1 / len(visible))
    linear = LinearNDInterpolator(seen, identity)(everywhere)
    outside = np.isnan(linear[:, 0])
    linear[outside] = NearestNDInterpolator(seen, identity)(everywhere[outside])
    kriging = RBFInterpolator(seen, identity, kernel="linear", degree=1)(everywhere)
    blocks = _kriging_of_blocks(mask, patch, visible)
    operators = dict(zip(BASELINES, (mean, linear, blocks, kriging), strict=True))
    return {name: Interpolator(operator, visible) for name, operator in operators.items()}


def _kriging_of_blocks(mask: NDArray[np.bool_], patch: int, visible: NDArray[np.int64]) -> FloatArray:
    """`model.kriging.kriged` as an operator on the visible pixels."""
    parts = block_parts(patch)
    width, size = patch // parts, patch * len(mask)
    known = np.argwhere(np.kron(~mask, np.ones((parts, parts), dtype=bool)))  # (n, 2) block rows, columns
    row, column = np.divmod(visible, size)
    belongs = (row // width == known[:, :1]) & (column // width == known[:, 1:])  # (n, visible)
    smoothing = NUGGET * size  # distances here are in pixels, there in tile sides
    guess = RBFInterpolator(
        known * width + (width - 1) / 2, np.eye(len(known)), kernel="linear", degree=1, smoothing=smoothing
    )
    everywhere = np.argwhere(np.ones((size, size), dtype=bool)).astype(np.float64)
    operator: FloatArray = guess(everywhere) @ (belongs / belongs.sum(axis=1, keepdims=True))
    return operator


def has_pixels(info: Mapping[str, Any]) -> bool:
    """Whether the decoder of a run (`info` of its checkpoint) predicts pixels.

    One of `normalise_patches` does not: a patch's level and contrast are in none of its predictions.
    """
    return not info.get("recipe", {}).get("loss", {}).get("normalise_patches", False)


def measure(
    model: MoEMAE, tiles: Tiles, *, limit: int, seed: int = 0, advance: Advance | None = None
) -> Errors:
    """Errors of the model, with metadata on, off and shuffled, and of the baselines, on the same masks.

    Args:
        model: in evaluation mode.
        tiles: to choose from: at most `PER_PLACE` of a place, fully valid.
        limit: at most so many.
        seed: of the choice and of the masks.
        advance: told how many tiles are done.

    Raises:
        EvaluationError: no tile is fully valid.
    """
    chosen = tiles.take(np.flatnonzero(tiles["valid_fraction"] == 1)).limited(limit, PER_PLACE, seed)
    if not len(chosen):
        raise EvaluationError(f"none of {len(tiles)} tiles is without invalid pixels")
    config = model.config
    dn = chosen.dn()
    mean, std = model.encoder.mean.numpy(), model.encoder.std.numpy()
    z = ((dn - mean) / std).astype(np.float64)
    noise = np.random.default_rng([seed, 1]).random((MASKS, config.num_patches), dtype=np.float32)
    which = np.arange(len(chosen)) % MASKS
    masks = masked(noise, MASK_RATIO).reshape(MASKS, config.grid, config.grid)
    squared = {name: np.full((len(chosen), len(BANDS)), np.nan) for name in (*MODEL, *BASELINES)}
    hidden = np.kron(masks, np.ones((1, config.patch_size, config.patch_size), dtype=bool))  # (M, S, S)
    for m in range(MASKS):
        rows = np.flatnonzero(which == m)
        for name, guess in interpolators(masks[m], config.patch_size).items() if len(rows) else ():
            for row in rows:
                squared[name][row] = _error(guess(z[row]), z[row], hidden[m])
    for metadata in METADATA:
        encodings = with_metadata(chosen, metadata, seed)
        for start in range(0, len(chosen), BATCH):
            at = slice(start, start + BATCH)
            predicted = reconstruct(model, dn[at], encodings[at], noise[which[at]])
            for i, guess_z in enumerate(predicted, start):
                squared[f"model, metadata {metadata}"][i] = _error(guess_z, z[i], hidden[which[i]])
            if advance is not None:
                advance(len(predicted))
    for values in squared.values():
        values[chosen["b1_estimated"], 0] = np.nan
    return Errors(squared, chosen)


def reconstruct(
    model: MoEMAE,
    dn: NDArray[np.uint16],
    encodings: NDArray[np.float32],
    noise: NDArray[np.float32],
    valid: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """The decoder's z-scores (B, 7, S, S) of all patches, visible ones included.

    `valid` (B, S, S) are the pixels that hold a measurement; all without it.
    """
    config = model.config
    measured = None if valid is None else torch.from_numpy(valid)
    with torch.inference_mode():
        result = model(
            torch.from_numpy(dn), torch.from_numpy(encodings), torch.from_numpy(noise), valid=measured
        )
        folded = torch.nn.functional.fold(
            result.predicted.transpose(1, 2), config.image_size, config.patch_size, stride=config.patch_size
        )
    return folded.numpy().astype(np.float64)


def masked(noise: NDArray[np.float32], ratio: float) -> NDArray[np.bool_]:
    """(M, L) True = masked, by the network's rule: the smallest noise stays."""
    visible = np.argsort(noise, axis=1, kind="stable")[:, : patches_kept(noise.shape[1], ratio)]
    masks = np.ones(noise.shape, dtype=bool)
    np.put_along_axis(masks, visible, False, axis=1)
    return masks


def _error(predicted: FloatArray, z: FloatArray, hidden: NDArray[np.bool_]) -> FloatArray:
    result: FloatArray = ((predicted - z) ** 2)[:, hidden].mean(axis=1)
    return result


def summarise(errors: Errors, count: int) -> dict[str, object]:
    """Errors per band with intervals, and the paired differences to the model; JSON-ready.

    Every place counts once: the mean over places of the mean over its tiles. A resample draws places.
    """
    return {
        "tiles": len(errors.tiles),
        "places": len(np.unique(errors.tiles["place"])),
        "unit": "squared z-score per masked value",
        "all": _table(errors, np.ones(len(errors.tiles), dtype=bool), count),
        "by_source": {
            str(source): _table(errors, errors.tiles["source"] == source, count)
            for source in np.unique(errors.tiles["source"])
        },
    }


def _table(errors: Errors, rows: NDArray[np.bool_], count: int) -> dict[str, object]:
    place = errors.tiles["place"][rows]
    means = {name: _by_place(values[rows], place) for name, values in errors.squared.items()}
    places = len(np.unique(place))
    weights = resamples(np.arange(places), count) if places > 1 else np.zeros((0, places))
    columns = ["all bands", *BANDS]
    estimates = {
        name: [_weighted(_column(values, c), weights) for c in range(len(columns))]
        for name, values in means.items()
    }
    ours = estimates[MODEL[0]]
    return {
        "tiles": int(rows.sum()),
        "places": places,
        "error": {
            name: {c: e.to_dict() for c, e in zip(columns, found, strict=True)}
            for name, found in estimates.items()
        },
        "model_minus": {
            name: {c: a.minus(b).to_dict() for c, a, b in zip(columns, ours, found, strict=True)}
            for name, found in estimates.items()
            if name != MODEL[0]
        },
    }


def _by_place(values: FloatArray, place: NDArray[np.generic]) -> FloatArray:
    """(N, 7) → (P, 7): mean over the tiles of every place that have the band measured."""
    _, index = np.unique(place, return_inverse=True)
    out = np.zeros((int(index.max()) + 1, values.shape[1]))
    number = np.zeros_like(out)
    np.add.at(out, index, np.nan_to_num(values))
    np.add.at(number, index, np.isfinite(values))
    return np.where(number > 0, out / np.maximum(number, 1), np.nan)


def _column(values: FloatArray, column: int) -> FloatArray:
    """Column 0 is the mean over the measured bands, then one for each band."""
    if column:
        result: FloatArray = values[:, column - 1]
        return result
    measured = np.isfinite(values)
    mean: FloatArray = np.nan_to_num(values).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)
    return mean


def _weighted(values: FloatArray, weights: FloatArray) -> Estimate:
    known = np.isfinite(values)
    if not known.any():
        return Estimate(float("nan"), np.full(len(weights), np.nan))
    w = weights[:, known]
    total = w.sum(axis=1)
    samples = np.where(total > 0, w @ values[known] / np.maximum(total, 1e-12), np.nan)
    return Estimate(float(values[known].mean()), samples)
