"""What is said of files that have not the seven bands."""

from __future__ import annotations

import re

from model.band_names import is_level_1
from model.bands import BANDS
from model.unit_doubts import SENTINEL_2_OFFSET

# Files of known products whose bands have no names: count → what to say.
_KNOWN_COUNTS = {
    8: "If the first seven are SR_B1..SR_B7, send bands=1,2,3,4,5,6,7",
    10: (
        "If this is HLS L30 (B01..B07, B09..B11), send bands=1,2,3,4,5,6,7 and, as its reflectance is times "
        "10,000, units=reflectance_1e4"
    ),
    11: "If this is Landsat B1..B11, send bands=1,2,3,4,5,6,7",
    12: (
        "If this is Sentinel-2 L2A in the order B01..B08, B8A, B09, B11, B12, send bands=1,2,3,4,9,11,12 and "
        f"units=reflectance_1e4; where {SENTINEL_2_OFFSET}"
    ),
    13: (
        "If this is Sentinel-2 L1C in the order B01..B08, B8A, B09..B12, send bands=1,2,3,4,9,12,13; "
        "with B8A last, as in EuroSAT, send bands=1,2,3,4,13,11,12; and units=reflectance_1e4; "
        f"where {SENTINEL_2_OFFSET}"
    ),
}


def wrong_count(names: list[str], count: int, source: str | None) -> str:
    """What is wrong with so many bands, a mask not counted."""
    expected = f"expected the seven bands {', '.join(BANDS)} in one file"
    if count == 1:
        return f"{came(names)}; {expected}. {_single_band(names[0], source)}"
    if any(name not in ("", "alpha") for name in names):
        missing = [band for band in BANDS if band.lower() not in names]
        hint = f"No band is named {', '.join(missing)}: choose seven with bands=, by index or name"
    else:
        hint = _KNOWN_COUNTS.get(count, "")
        if not hint and count > len(BANDS):
            hint = "Choose seven with bands=, for example bands=1,2,3,4,5,6,7"
    return f"{came(names)}; {expected}" + (f". {hint}" if hint else "")


def came(names: list[str]) -> str:
    """What bands the file has."""
    named = [name for name in names if name]
    text = f"the file has {len(names)} band{'s' if len(names) != 1 else ''}"
    return f"{text} ({cut(', '.join(named).upper())})" if named else text


def _single_band(name: str, source: str | None) -> str:
    """What to do with one file of a USGS delivery, which has one file per band."""
    match = re.search(r"_((?:SR_|ST_|QA_)?[A-Z0-9]+)\.TIFF?$", source or "", re.IGNORECASE)
    here = cut(match[1] if match else name).upper()
    if here in BANDS:
        which = f"This file is {here}; missing are {', '.join(band for band in BANDS if band != here)}. "
    elif is_level_1(source):
        return (
            "This file is of a Level-1 product, whose numbers are no surface reflectance: send Level 2, "
            f"whose files are {BANDS[0]} to {BANDS[-1]}"
        )
    else:
        this = f"This file is {here}, none of the seven" if here.startswith(("QA", "ST_")) else ""
        which = f"{this or 'Six of the seven are missing'}. "
    return (
        f"{which}A USGS delivery has one file per band: `landmoe stack FOLDER -o scene.tif` makes one file "
        "of its seven"
    )


def cut(text: str, limit: int = 120) -> str:
    """As much of a text as an answer repeats."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
