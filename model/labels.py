"""The class names of the two data sets that probes are fitted on."""

from __future__ import annotations

from collections.abc import Iterable

# BigEarthNet-19, the nomenclature of Sumbul et al. 2021 (arXiv 2105.07921, table 1), with the CORINE level-3
# names of BigEarthNet-43 that each class is made of. The order is that of the paper: probes are stored by it.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}

BIGEARTHNET_19: tuple[str, ...] = tuple(_MEMBERS)

# CORINE names that the 19-class nomenclature leaves out.
BIGEARTHNET_DROPPED: frozenset[str] = frozenset(
    {
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Bare rock",
        "Burnt areas",
        "Intertidal flats",
    }
)

# CORINE-43 name → BigEarthNet-19 name.
BIGEARTHNET_43_TO_19: dict[str, str] = {old: new for new, olds in _MEMBERS.items() for old in olds}

# EuroSAT (Helber et al. 2019), folder names, in alphabetical order.
EUROSAT_10: tuple[str, ...] = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)


class LabelError(ValueError):
    """A class name that belongs to none of the nomenclatures."""


def to_bigearthnet_19(names: Iterable[str]) -> tuple[str, ...]:
    """Merge CORINE-43 (or already merged) names into BigEarthNet-19, without repeats, in the table's order.

    Names that the nomenclature leaves out vanish, so the result may be empty.

    Raises:
        LabelError: a name of neither nomenclature.
    """
    found = set()
    for name in names:
        if name in BIGEARTHNET_43_TO_19:
            found.add(BIGEARTHNET_43_TO_19[name])
        elif name in BIGEARTHNET_19:
            found.add(name)
        elif name not in BIGEARTHNET_DROPPED:
            raise LabelError(
                f"{name!r} is neither a CORINE level-3 name of BigEarthNet nor one of its 19 classes"
            )
    return tuple(name for name in BIGEARTHNET_19 if name in found)
