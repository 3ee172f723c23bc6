"""Folders of GeoTIFF tiles in which their labels show, and the list that names them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.rasters import ORIGIN, dn_pixels, geotiff

# DN that a label adds to its bands, by their numbers from 0.
GROUND: Mapping[str, tuple[tuple[int, ...], int]] = {
    "field": ((4, 5), 9_000),
    "forest": ((4,), 5_000),
    "Öde Fläche": ((0, 1, 2), 12_000),
    "water": ((4, 5, 6), -4_500),
}


def tile(labels: Sequence[str], number: int) -> bytes:
    """A tile of its own place, 10 km from the last; labels without ground of their own do not show."""
    pixels = dn_pixels(40, 40, seed=number).astype(np.int64)
    for label in labels:
        bands, change = GROUND.get(label, ((), 0))
        pixels[list(bands)] += change
    east, north = ORIGIN
    at = (east + 10_000 * (number % 20), north + 10_000 * (number // 20))
    return geotiff(np.clip(pixels, 1, 65_535).astype(np.uint16), origin=at)


def folder(path: Path, labels: Sequence[Sequence[str]]) -> Path:
    """Write a tile for each of the label sets, and `labels.csv` beside the folder; the path of that list."""
    path.mkdir(parents=True)
    for number, names in enumerate(labels):
        (path / f"tile_{number:03d}.tif").write_bytes(tile(names, number))
    listing = path.parent / "labels.csv"
    with listing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "datetime", "labels"])
        writer.writerows(
            [f"tile_{number:03d}.tif", "2024-07-01T10:10:00Z", "|".join(names)]
            for number, names in enumerate(labels)
        )
    return listing
