"""Colours of classes in a map: the ones that are known for a nomenclature, else hues far apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

Colour = tuple[int, int, int]

# Of CORINE Land Cover's legend (European Environment Agency, level 3); for a class that joins several of its,
# that of the most common one. EuroSAT's have those of the classes they are most like.
_KNOWN: dict[str, Colour] = {
    "Urban fabric": (255, 0, 0),
    "Industrial or commercial units": (204, 77, 242),
    "Arable land": (255, 255, 168),
    "Permanent crops": (242, 166, 77),
    "Pastures": (230, 230, 77),
    "Complex cultivation patterns": (255, 230, 77),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (230, 204, 77),
    "Agro-forestry areas": (242, 204, 166),
    "Broad-leaved forest": (128, 255, 0),
    "Coniferous forest": (0, 166, 0),
    "Mixed forest": (77, 255, 0),
    "Natural grassland and sparsely vegetated areas": (204, 242, 77),
    "Moors, heathland and sclerophyllous vegetation": (166, 255, 128),
    "Transitional woodland, shrub": (166, 242, 0),
    "Beaches, dunes, sands": (230, 230, 230),
    "Inland wetlands": (166, 166, 255),
    "Coastal wetlands": (204, 204, 255),
    "Inland waters": (128, 242, 230),
    "Marine waters": (230, 242, 255),
    "AnnualCrop": (255, 255, 168),
    "Forest": (77, 255, 0),
    "HerbaceousVegetation": (204, 242, 77),
    "Highway": (204, 0, 0),
    "Industrial": (204, 77, 242),
    "Pasture": (230, 230, 77),
    "PermanentCrop": (242, 166, 77),
    "Residential": (230, 0, 77),
    "River": (0, 204, 242),
    "SeaLake": (128, 242, 230),
}
_GOLDEN = 0.6180339887  # share of the colour wheel from one hue to the next: no two of them come close


def palette(labels: Sequence[str]) -> list[Colour]:
    """Red, green and blue, 0 to 255, of each label.

    The nomenclatures' own where every label is one of theirs: two systems in one map would mislead.
    """
    if all(label in _KNOWN for label in labels):
        return [_KNOWN[label] for label in labels]
    return [_hue(index) for index in range(len(labels))]


def _hue(index: int) -> Colour:
    # Three shades, so that neighbours in hue differ in lightness.
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.7, (0.95, 0.75, 0.55)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)
