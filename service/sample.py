"""A small synthetic tile, for trying the service without imagery."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile

from model.bands import BANDS, DN_OFFSET, DN_SCALE

SIDE = 41  # px, as most tiles of BigEarthNet-Landsat
PIXEL_M = 30.0
CRS = "EPSG:32633"
UPPER_LEFT = (386_355.0, 5_293_245.0)  # m, in UTM zone 33N: near Salzburg
DATETIME = "2024-07-01T10:10:00Z"
DESCRIPTION = "SYNTHETIC tile made by landmoe sample-tile; no satellite ever saw it"

# Typical summer surface reflectance of SR_B1..SR_B7 in round numbers.
_SPECTRA = {
    "water": (0.035, 0.038, 0.042, 0.028, 0.018, 0.008, 0.005),
    "forest": (0.012, 0.018, 0.036, 0.022, 0.300, 0.125, 0.050),
    "crop": (0.022, 0.032, 0.066, 0.045, 0.420, 0.190, 0.090),
    "stubble": (0.060, 0.075, 0.110, 0.140, 0.240, 0.310, 0.240),
    "town": (0.085, 0.100, 0.125, 0.135, 0.205, 0.215, 0.180),
}
_NOISE = 0.004  # reflectance, one standard deviation


def make(seed: int = 0) -> bytes:
    """A georeferenced seven-band GeoTIFF (41 x 41, uint16 DN): fields, wood, a village and a river.

    The same seed gives the same bytes. Its tags say that it is synthetic.
    """
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=len(BANDS),
            height=SIDE,
            width=SIDE,
            dtype="uint16",
            nodata=0,
            crs=CRS,
            transform=rasterio.Affine(PIXEL_M, 0.0, UPPER_LEFT[0], 0.0, -PIXEL_M, UPPER_LEFT[1]),
            compress="deflate",
            predictor=2,
        ) as dataset:
            dataset.write(pixels(seed))
            for index, name in enumerate(BANDS, start=1):
                dataset.set_band_description(index, name)
            dataset.update_tags(
                TIFFTAG_IMAGEDESCRIPTION=DESCRIPTION,
                TIFFTAG_DATETIME=DATETIME.replace("-", ":").replace("T", " ").rstrip("Z"),
            )
        return bytes(memory.read())


def pixels(seed: int = 0) -> npt.NDArray[np.uint16]:
    """DN, uint16 (7, 41, 41)."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)

    def spectrum(name: str) -> npt.NDArray[np.float64]:
        return np.array(_SPECTRA[name])[:, None, None]

    # Fields: blocks of 6 x 9 px, each somewhere between a green crop and stubble.
    ripeness = rng.random((8, 6))[(rows // 6).astype(int), (cols // 9).astype(int)]
    ground = spectrum("crop") * (1 - ripeness) + spectrum("stubble") * ripeness

    # A wood where a smooth random surface is high, and a village where the fields meet.
    waves = rng.normal(size=(4, 4))
    height = sum(
        waves[i, j] * np.cos(np.pi * (i * rows + 2 * j) / SIDE) * np.cos(np.pi * (j * cols + 3 * i) / SIDE)
        for i in range(4)
        for j in range(4)
    )
    ground = np.where(height > np.quantile(height, 0.7), spectrum("forest"), ground)
    center = rng.uniform(10, 30, size=2)
    village = np.hypot(rows - center[0], cols - center[1]) < 4.5
    ground = np.where(village, spectrum("town"), ground)

    # A river three pixels wide winds from top to bottom.
    bed = SIDE * rng.uniform(0.3, 0.7) + 6 * np.sin(rows / rng.uniform(6, 9) + rng.uniform(0, 6))
    ground = np.where(np.abs(cols - bed) < 1.5, spectrum("water"), ground)

    reflectance = ground + rng.normal(0, _NOISE, ground.shape)
    return np.rint((reflectance - DN_OFFSET) / DN_SCALE).astype(np.uint16)
