"""The seven bands a tile has, and the scale its numbers are on."""

from __future__ import annotations

# Landsat 8/9 OLI surface reflectance, Collection 2 Level 2, in the order the network takes them.
BANDS = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7")
COMMON_NAMES = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")  # STAC eo extension

# USGS Collection 2 Level 2: reflectance = DN * scale + offset.
DN_SCALE = 2.75e-5
DN_OFFSET = -0.2
DN_MIN_VALID = 1  # 0 is fill
DN_MAX = 65535

# Per-band mean and standard deviation of raw DN over BigEarthNet-Landsat, as published with the network
# (fill zeros were counted in them).
MEAN = (9405.194, 9649.677, 10425.686, 10444.589, 16067.627, 12699.184, 10596.475)
STD = (6016.344, 6095.472, 5839.462, 6068.493, 6271.440, 4256.046, 3130.776)
