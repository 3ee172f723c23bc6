"""Pictures of what the network does with tiles: reconstructions and the routing to its experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from model.config import NUM_EXTRA_TOKENS
from model.moe_mae import MASK_RATIO, MoEMAE
from training import reconstruction, stretch
from training.charts import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure
from training.heldout import Tiles

EXPERTS = (BLUE, ORANGE, GREEN, PURPLE, RED)  # as many as a layer can have
GREY_LEVEL = 0.82  # of a masked patch


def reconstructions(model: MoEMAE, tiles: Tiles, names: Sequence[str], seed: int = 0) -> Figure:
    """One row per tile: original, what the network saw, what it made of it; in true and in false colour.

    The third picture is what the decoder predicts for masked patches, with the visible ones as they were.
    Beside it is the best guess without a network (kriging).
    """
    config = model.config
    noise = np.random.default_rng(seed).random((len(tiles), config.num_patches), dtype=np.float32)
    dn = tiles.dn()
    predicted = reconstruction.reconstruct(model, dn, tiles["encodings"], noise, valid=tiles.valid())
    mean, std = (t.numpy().astype(np.float64) for t in (model.encoder.mean, model.encoder.std))
    masks = reconstruction.masked(noise, MASK_RATIO).reshape(-1, config.grid, config.grid)
    columns = ("original", "seen by the network", "reconstruction", "kriging")
    made = figure(11.5, 1.55 * len(tiles) + 0.6)
    axes = made.subplots(
        len(tiles), 2 * len(columns) + 1, squeeze=False, width_ratios=[1] * 4 + [0.08] + [1] * 4
    )
    for row in range(len(tiles)):
        hidden = np.kron(masks[row], np.ones((config.patch_size,) * 2, dtype=bool))
        z = (dn[row] - mean[0]) / std[0]
        kriging = reconstruction.interpolators(masks[row], config.patch_size)["kriging"](z)
        pictures = {
            "original": dn[row].astype(np.float64),
            "seen by the network": dn[row].astype(np.float64),
            "reconstruction": np.where(hidden, predicted[row] * std[0] + mean[0], dn[row]),
            "kriging": np.where(hidden, kriging * std[0] + mean[0], dn[row]),
        }
        errors = {
            "reconstruction": float(((predicted[row] - z) ** 2)[:, hidden].mean()),
            "kriging": float(((kriging - z) ** 2)[:, hidden].mean()),
        }
        axes[row, len(columns)].set_axis_off()
        for k, bands in enumerate((stretch.TRUE_COLOUR, stretch.FALSE_COLOUR)):
            shown = stretch.limits(dn[row], bands)
            for c, (title, values) in enumerate(pictures.items()):
                place = axes[row, c + k * (len(columns) + 1)]
                picture = stretch.rgb(values, bands, shown)
                if title == "seen by the network":
                    picture[hidden] = GREY_LEVEL
                place.imshow(picture, interpolation="nearest")
                place.set_xticks([])
                place.set_yticks([])
                if row == 0:
                    place.set_title(title, fontsize=8)
                if title in errors and k == 0:
                    place.set_xlabel(f"error {errors[title]:.3f}", fontsize=7)
        axes[row, 0].set_ylabel(names[row], fontsize=7)
    made.suptitle(
        "Masked reconstruction of tiles. Left: true colour (red, green, blue). Right: false colour "
        "(SWIR, NIR, red).\nError: squared z-score over masked patches, all bands; lower is better.",
        fontsize=9,
    )
    return made


def routing(model: MoEMAE, tiles: Tiles, names: Sequence[str], layers: Sequence[int]) -> Figure:
    """To which experts patches go: one row per tile, one map per layer.

    The hue is the expert with the largest gate, the strength is its gate (from 0.5, when two experts share
    a patch equally, to 1). The bars below a map are the shares of all patches' gates by expert.
    """
    config = model.config
    with torch.inference_mode():
        z = model.encoder.standardise(torch.from_numpy(tiles.dn()))
        gates = model.encoder(z, torch.from_numpy(tiles["encodings"])).gates
    made = figure(1.35 * (len(layers) + 1) + 0.4, 1.75 * len(tiles) + 1.0)
    axes = made.subplots(2 * len(tiles), len(layers) + 1, squeeze=False, height_ratios=[1, 0.12] * len(tiles))
    raw = tiles.raw()
    for t in range(len(tiles)):
        picture, blank = axes[2 * t, 0], axes[2 * t + 1, 0]
        picture.imshow(stretch.rgb(raw[t], stretch.TRUE_COLOUR), interpolation="nearest")
        picture.set_ylabel(names[t], fontsize=7)
        blank.set_axis_off()
        for c, layer in enumerate(layers, 1):
            patches = gates[layer][t, NUM_EXTRA_TOKENS:].numpy()  # [L, E]
            share = patches.mean(axis=0)
            axes[2 * t, c].imshow(_hues(patches, config.grid), interpolation="nearest")
            if t == 0:
                axes[0, c].set_title(f"layer {layer + 1}\n{patches.shape[1]} experts", fontsize=8)
            left = 0.0
            for e, width in enumerate(share):
                axes[2 * t + 1, c].barh(0, width, left=left, color=EXPERTS[e], height=1)
                left += float(width)
            axes[2 * t + 1, c].set_xlim(0, 1)
        for place in axes[2 * t : 2 * t + 2].ravel():
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_visible(False)
    handles = [Patch(color=colour, label=f"expert {e + 1}") for e, colour in enumerate(EXPERTS)]
    made.legend(handles=handles, loc="outside lower center", ncols=len(EXPERTS), frameon=False, fontsize=8)
    made.suptitle(
        "Routing of patches to experts. Colour: the expert with the largest gate, paler the more it shares "
        "with a second one.\nBars: share of all gates, by expert.",
        fontsize=9,
    )
    return made


def _hues(gates: NDArray[np.float32], grid: int) -> NDArray[np.float64]:
    """Gates [L, E] → picture (grid, grid, 3): colour of the largest, paler as it nears a half."""
    best = gates.argmax(axis=1)
    strength = 0.25 + 0.75 * np.clip((gates.max(axis=1) - 0.5) * 2, 0, 1)
    colours = ListedColormap(EXPERTS)(best)[:, :3]
    picture: NDArray[np.float64] = strength[:, None] * colours + (1 - strength[:, None])
    return picture.reshape(grid, grid, 3)


def expert_use(model: MoEMAE, tiles: Tiles) -> Figure:
    """Share of the gates of every expert in every layer, over all patches of many tiles."""
    with torch.inference_mode():
        z = model.encoder.standardise(torch.from_numpy(tiles.dn()))
        gates = model.encoder(z, torch.from_numpy(tiles["encodings"])).gates
    made = figure(8, 3.2)
    axes = made.subplots()
    for layer, found in enumerate(gates):
        left = 0.0
        for e, share in enumerate(found[:, NUM_EXTRA_TOKENS:].mean(dim=(0, 1)).tolist()):
            axes.bar(layer + 1, share, bottom=left, color=EXPERTS[e], width=0.75, edgecolor="white", lw=0.6)
            left += share
        even = 1 / found.shape[-1]
        for e in range(1, found.shape[-1]):
            axes.plot([layer + 0.6, layer + 1.4], [e * even] * 2, color=GREY, lw=0.7, ls=":")
    axes.set_xticks(range(1, len(gates) + 1))
    axes.set_xlabel("layer")
    axes.set_ylabel("share of gates")
    axes.set_ylim(0, 1)
    axes.set_title(f"Use of the experts by the patches of {len(tiles)} tiles (dotted: even use)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return made
