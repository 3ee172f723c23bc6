"""Labelled tiles made by code, in which the label shows: a patch of ground for every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from model.config import ModelConfig, Preprocessing
from model.labels import EUROSAT_10

TINY = ModelConfig(
    embed_dim=24, depth=3, first_hidden=12, last_hidden=6, num_heads=4, num_groups=2,
    decoder_dim=24, decoder_depth=1, decoder_heads=4, decoder_groups=2, decoder_hidden=12,
)  # fmt: skip
PREPROCESSING = Preprocessing(nodata_fill="band_mean")
CORINE = ("Pastures", "Coniferous forest", "Sea and ocean")


def ground(bands: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint16]:
    """One tile (7, 40, 40): bands around their levels, with some texture."""
    return np.clip(bands[:, None, None] + rng.normal(0, 300, size=(7, 40, 40)), 1, 65535).astype(np.uint16)


def eurosat(path: Path, per_class: int = 6) -> Path:
    """Ten classes, each with its own spectrum; every tile a place of its own."""
    rng = np.random.default_rng(0)
    spectra = rng.uniform(8000, 24000, size=(len(EUROSAT_10), 7))
    label = np.repeat(EUROSAT_10, per_class)
    x = np.stack([ground(spectra[i // per_class], rng) for i in range(len(label))])
    return _save(path, x, label)


def bigearthnet(path: Path, count: int = 48) -> Path:
    """Three classes, each told by brightness of its own bands; the fourth has two positives only."""
    rng = np.random.default_rng(1)
    truth = rng.random((count, 3)) < 0.5
    truth[~truth.any(axis=1), 0] = True
    x = np.stack([ground(np.full(7, 9000.0), rng) for _ in range(count)])
    for c in range(3):
        x[truth[:, c], 2 * c : 2 * c + 2] += 6000
    names = [[CORINE[c] for c in np.flatnonzero(row)] for row in truth]
    for row in names[:2]:
        row.append("Salt marshes")
    names[-1] = ["Airports"]  # of a class that the nomenclature leaves out: no label at all
    return _save(path, x, np.array(["|".join(n) for n in names]))


def _save(path: Path, x: NDArray[np.uint16], label: NDArray[np.str_]) -> Path:
    count = len(x)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        x=x,
        lat=np.linspace(-60, 60, count).astype(np.float32),
        lon=np.full(count, 5, np.float32),
        time=np.array(["2019-07-27T10:00:00Z"] * count),
        label=label,
        id=np.array([f"{path.stem}_{i}" for i in range(count)]),
        group=np.array([f"{path.stem}_{i}" for i in range(count)]),
        gsd=np.full(count, 30, np.float32),
        b1_estimated=np.zeros(count, np.bool_),
    )
    return path


def scene_with_cover(folder: Path, *, rows: int = 80, columns: int = 520) -> tuple[Path, Path]:
    """A 7-band scene of two classes, and their raster, shifted by half a pixel and larger than the scene."""
    rng = np.random.default_rng(2)
    blobs = np.kron(rng.random((rows // 20 + 2, columns // 20 + 2)), np.ones((20, 20)))
    codes = np.where(blobs > 0.5, 1, 2).astype(np.int16)
    under = codes[10 : 10 + rows, 10 : 10 + columns]
    pixels = np.where(under == 1, 9000, 16000)[None] + rng.normal(0, 300, size=(7, rows, columns))
    scene, cover = folder / "scene.tif", folder / "cover.tif"
    common = {"driver": "GTiff", "crs": "EPSG:32633"}
    with rasterio.open(
        scene, "w", **common, count=7, height=rows, width=columns, dtype="uint16",
        transform=Affine(30, 0, 500_000, 0, -30, 5_000_000),
    ) as file:  # fmt: skip
        file.write(pixels.astype(np.uint16))
    with rasterio.open(
        cover, "w", **common, count=1, height=codes.shape[0], width=codes.shape[1], dtype="int16",
        transform=Affine(30, 0, 500_000 - 315, 0, -30, 5_000_000 + 315),
    ) as file:  # fmt: skip
        file.write(codes, 1)
    return scene, cover
