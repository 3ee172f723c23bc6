"""Land-cover fractions of the tiles under a classified raster, and how well features predict them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.warp import transform

from model import tiles as tile_rules
from model.bands import BANDS
from model.tile_errors import TileError
from training import linear, metrics
from training.heldout import EvaluationError, Tiles
from training.metrics import Estimate

FloatArray = NDArray[np.float64]

MIN_COVERED = 0.95  # of a tile's area must be classified
BLOCKS = 12  # strips of equal numbers of tiles along the longer side: what folds and resamples are made of
FOLDS = 6
MIN_FRACTION = 0.02  # a class with a smaller mean share is not scored: a few pixels would decide


@dataclass(frozen=True)
class Windows:
    """N tiles of a scene with the land cover under them."""

    dn: NDArray[np.uint16]  # (N, 7, S, S), all pixels valid
    lat: FloatArray  # (N,) degrees
    lon: FloatArray
    fractions: FloatArray  # (N, C), each row sums to 1
    classes: tuple[str, ...]
    centre: FloatArray  # (N, 2) x and y in tile sides: distance 1 = touching

    def take(self, rows: NDArray[np.int64]) -> Windows:
        """Some of the windows."""
        return Windows(
            self.dn[rows],
            self.lat[rows],
            self.lon[rows],
            self.fractions[rows],
            self.classes,
            self.centre[rows],
        )


@dataclass(frozen=True)
class Cover:
    """A raster of class codes."""

    codes: NDArray[np.int64]  # (H, W)
    names: dict[int, str]
    crs: str
    inverse: rasterio.Affine  # coordinates → column, row


def parse_classes(text: str) -> dict[int, str]:
    """`1=built up,2=water` → names by code.

    Raises:
        EvaluationError: another form.
    """
    try:
        pairs = [part.split("=", 1) for part in text.split(",")]
        return {int(code): name.strip() for code, name in pairs}
    except ValueError:
        raise EvaluationError(f"land-cover classes {text!r}: expected CODE=NAME,CODE=NAME") from None


def read_cover(path: Path, names: dict[int, str]) -> Cover:
    """Read band 1; codes without a name count as not classified.

    Raises:
        EvaluationError: it cannot be read, or has no coordinate system.
    """
    with _open(path) as file:
        if file.crs is None:
            raise EvaluationError(f"{path}: the land cover has no coordinate system")
        return Cover(file.read(1).astype(np.int64), names, file.crs.to_string(), ~file.transform)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with rasterio.open(path) as file:
            yield file
    except RasterioError as error:
        raise EvaluationError(f"{path}: cannot be read ({error})") from error
    except TileError as error:
        raise EvaluationError(f"{path}: {error}") from error


def fractions(cover: Cover, left: float, top: float, right: float, bottom: float) -> FloatArray | None:
    """Share of every class in a rectangle (coordinates of the raster), partial pixels by their area.

    None where less than `MIN_COVERED` of it is classified.
    """
    c0, r0 = _apply(cover.inverse, left, top)
    c1, r1 = _apply(cover.inverse, right, bottom)
    height, width = cover.codes.shape
    if c0 < 0 or r0 < 0 or c1 > width or r1 > height:
        return None
    rows, columns = _overlap(r0, r1), _overlap(c0, c1)
    part = cover.codes[rows[0] : rows[0] + len(rows[1]), columns[0] : columns[0] + len(columns[1])]
    areas = np.array([rows[1] @ (part == code) @ columns[1] for code in cover.names])
    if areas.sum() < MIN_COVERED * (r1 - r0) * (c1 - c0):
        return None
    result: FloatArray = areas / areas.sum()
    return result


def _apply(transform: rasterio.Affine, x: float, y: float) -> tuple[float, float]:
    """An affine transform of a point; the library's own operator changes its name between releases."""
    t = transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _overlap(start: float, stop: float) -> tuple[int, FloatArray]:
    """First pixel touched by [start, stop), and the length of every touched one that lies in it."""
    start, stop = round(start, 6), round(stop, 6)  # coordinates are exact to far less than a pixel
    pixels = np.arange(int(np.floor(start)), int(np.ceil(stop)))
    return int(pixels[0]), np.minimum(pixels + 1, stop) - np.maximum(pixels, start)


def cut(scene: Path, cover: Cover, stride: int) -> Windows:
    """Windows of a georeferenced 7-band scene (DN) every `stride` px, where the raster covers them.

    Raises:
        EvaluationError: it cannot be read, is no seven bands of DN, has another coordinate system than the
            raster, or too few windows are covered.
    """
    dn, position, centre, found = [], [], [], []
    with _open(scene) as file:
        if set(file.dtypes) != {"uint16"} or file.count != len(BANDS):
            raise EvaluationError(
                f"{scene} has {file.count} bands of {file.dtypes[0]}; expected the seven as DN, uint16"
            )
        if file.crs is None or file.crs.to_string() != cover.crs:
            raise EvaluationError(
                f"{scene} is in {file.crs}, the land cover in {cover.crs}; expected the same"
            )
        pixels = file.read()
        for grid in tile_rules.windows(file.height, file.width, stride):
            row, col, height, width = grid.window
            part = pixels[:, row : row + height, col : col + width]
            left, top = _apply(file.transform, col, row)
            right, bottom = _apply(file.transform, col + width, row + height)
            share = fractions(cover, left, top, right, bottom) if (part != 0).all() else None
            if share is not None:
                dn.append(part)
                position.append(((left + right) / 2, (top + bottom) / 2))
                centre.append((col / tile_rules.TILE_SIZE, row / tile_rules.TILE_SIZE))
                found.append(share)
    if not dn:
        raise EvaluationError(f"no window of {scene} is covered by the land-cover raster")
    degrees = transform(cover.crs, "EPSG:4326", [x for x, _ in position], [y for _, y in position])
    lon, lat = degrees[0], degrees[1]
    windows = Windows(
        np.stack(dn).astype(np.uint16),
        np.array(lat),
        np.array(lon),
        np.stack(found),
        tuple(cover.names.values()),
        np.array(centre),
    )
    if not separable(windows):
        raise EvaluationError(
            f"{scene}: the windows under the land cover ({len(dn)}) are too few or too close together to be "
            f"held out in turns; expected a scene some {tile_rules.TILE_SIZE * FOLDS} px long at least"
        )
    return windows


def under(tiles: Tiles, cover: Cover) -> tuple[Windows, NDArray[np.int64]]:
    """Fully valid tiles of a set that lie on the raster, and which ones they are.

    Tiles are taken to be north-up in the raster's system, as they are where both are in one UTM zone.
    """
    known = np.flatnonzero(
        np.isfinite(tiles["lat"]) & np.isfinite(tiles["gsd"]) & (tiles["valid_fraction"] == 1)
    )
    at = transform("EPSG:4326", cover.crs, tiles["lon"][known].tolist(), tiles["lat"][known].tolist())
    rows, centre, found = [], [], []
    for row, x, y in zip(known, at[0], at[1], strict=True):
        side = float(tiles["gsd"][row]) * tile_rules.TILE_SIZE  # metres
        share = fractions(cover, x - side / 2, y + side / 2, x + side / 2, y - side / 2)
        if share is not None:
            rows.append(int(row))
            centre.append((x / side, y / side))
            found.append(share)
    index = np.array(rows, np.int64)
    shares = np.array(found).reshape(len(rows), len(cover.names))
    chosen = tiles.take(index)
    return Windows(
        chosen.dn(), chosen["lat"], chosen["lon"], shares, tuple(cover.names.values()), np.array(centre)
    ), index


def blocks(centre: FloatArray) -> NDArray[np.int64]:
    """Strip number (N,) of every window, along the side on which the windows extend further."""
    axis = int(np.argmax(np.ptp(centre, axis=0)))
    along = centre[:, axis]
    edges = np.quantile(along, np.linspace(0, 1, BLOCKS + 1)[1:-1])
    result: NDArray[np.int64] = np.searchsorted(edges, along, side="right").astype(np.int64)
    return result


def separable(windows: Windows) -> bool:
    """Whether every fold leaves windows of two strips, at least, to train on."""
    strip = blocks(windows.centre)
    return all(len(np.unique(strip[train])) > 1 for train, _ in _folds(windows.centre, strip))


def _folds(
    centre: FloatArray, strip: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Windows (N,) to train and to test on, a fold of neighbouring strips after the other."""
    fold = strip * FOLDS // (strip.max() + 1)
    for f in np.unique(fold):
        test = fold == f
        apart = np.abs(centre[:, None] - centre[None, test]).max(axis=2).min(axis=1) >= 1
        yield ~test & apart, test


def regress(features: FloatArray, windows: Windows, weights: FloatArray) -> dict[str, Estimate]:
    """R² of every class, and their mean (`mean`), of ridge regressions over folds of neighbouring strips.

    Training windows that share a pixel with a test window are left out of the fold.

    Args:
        features: (N, D).
        windows: with the fractions.
        weights: (B, N), resamples of the strips.
    """
    strip = blocks(windows.centre)
    predicted = np.zeros_like(windows.fractions)
    for train, test in _folds(windows.centre, strip):
        predicted[test] = linear.ridge(
            features[train], windows.fractions[train], features[test], strip[train]
        )
    scores: dict[str, Estimate] = {}
    for c, name in enumerate(windows.classes):
        if windows.fractions[:, c].mean() >= MIN_FRACTION:
            args = windows.fractions[:, c], predicted[:, c]
            scores[name] = Estimate(float(metrics.r2(*args)[0]), metrics.r2(*args, weights))
    if scores:
        scores["mean"] = Estimate(
            float(np.mean([s.value for s in scores.values()])),
            np.mean([s.samples for s in scores.values()], axis=0),
        )
    return scores
