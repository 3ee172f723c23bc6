"""Names of bands: those of the seven in each convention, and what a name that is in none of them betrays."""

from __future__ import annotations

import re

from model.bands import BANDS, COMMON_NAMES

LEVEL_1 = re.compile(r"L[A-Z]\d{2}_L1", re.IGNORECASE)  # how USGS names what is, or is made of, Level 1
MAX_TEXT = 500  # characters of `bands` or of a file's own text that are read or repeated

# Names of the seven in each convention, lower case, in the order SR_B1..SR_B7.
LANDSAT = tuple(name.lower() for name in BANDS)
PLAIN = tuple(f"b{n}" for n in range(1, 8))
SENTINEL_2 = ("b1", "b2", "b3", "b4", "b8a", "b11", "b12")  # 8A is the narrow NIR that matches SR_B5
SENTINEL_2_WIDE = ("b1", "b2", "b3", "b4", "b8", "b11", "b12")  # the wide NIR, where 8A is not there
_SENTINEL_2_MARKS = frozenset({"b8a", "b9", "b11", "b12"})  # never among the plain B1..B7 of a Landsat tile
_THEMATIC_MAPPER = tuple(f"sr_b{n}" for n in (1, 2, 3, 4, 5, 7))  # TM and ETM+: SR_B1 is blue, no SR_B6
# Other spellings of the common names; they are not trusted alone, but they betray another order.
_SYNONYMS = {
    "coastal_aerosol": "coastal",
    "ultra_blue": "coastal",
    "nir": "nir08",
    "swir1": "swir16",
    "swir_1": "swir16",
    "swir2": "swir22",
    "swir_2": "swir22",
}
# A band's number among other words, as exports write it: LC08_…_SR_B3.TIF, SR_B3_median, 0_SR_B3, Band 3.
_NUMBERED = re.compile(r"(?<![a-z0-9])(?:sr_?)?b(?:and)?_?0?(\d)(?![a-z0-9])")
# Words of bands that are no surface reflectance.
_FOREIGN = re.compile(
    r"(?<![a-z0-9])(?:qa|st|radsat|alpha|mask|fmask|ndvi|evi2?|savi|msavi|ndwi|ndmi|nbr2?|dem|elevation|slope|aspect|"
    r"red_?edge_?\d?|cirrus|panchromatic|thermal|tirs\d?|lst|vcid)(?![a-z0-9])"
)
# What a name without a number calls its band, as `nbart_blue` or `blue_median`: of each of the seven.
_CALLED = tuple(
    re.compile(rf"(?<![a-z])(?:{words})(?![a-z0-9])")
    for words in (
        "coastal|aerosols?|ultra_blue",
        "(?<!coastal_)(?<!ultra_)blue",
        "green",
        "(?<!infra_)red",
        "nir(?:08)?|near_infra_?red",
        "(?:swir|short_?wave_infra_?red)_?(?:1|16)",
        "(?:swir|short_?wave_infra_?red)_?(?:2|22)",
    )
)
NONE_OF_THE_SEVEN = -1


def normal(text: str | None) -> str:
    """Lower case, underscores for blanks and dashes, without the zero of B01."""
    name = re.sub(r"[\s-]+", "_", (text or "")[:MAX_TEXT].strip().lower())
    return re.sub(r"^b0(\d)$", r"b\1", name)


def position_of(name: str) -> int | None:
    """Which of the seven a band is by its name, from 0, or NONE_OF_THE_SEVEN; None if that does not say."""
    name = _SYNONYMS.get(name, name)
    for convention in (LANDSAT, COMMON_NAMES, PLAIN):
        if name in convention:
            return convention.index(name)
    if _FOREIGN.search(name):
        return NONE_OF_THE_SEVEN
    if numbers := set(_NUMBERED.findall(name)):
        return int(numbers.pop()) - 1 if len(numbers) == 1 else None
    called = [position for position, words in enumerate(_CALLED) if words.search(name)]
    return called[0] if len(called) == 1 else None


def is_level_1(file: str | None) -> bool:
    """Whether a file is named as one of a Level-1 product, whose numbers are no surface reflectance.

    Collection 1 named surface reflectance for the Level 1 that it was made of: LC08_L1TP_…_sr_band1.tif.
    """
    return bool(LEVEL_1.match(file or "")) and "_sr_" not in (file or "").lower()


def is_sentinel_2(names: list[str]) -> bool:
    """Whether the names of a file's bands are numbered as those of Sentinel-2."""
    return not _SENTINEL_2_MARKS.isdisjoint(names)


def lacks_coastal(names: list[str]) -> bool:
    """Whether a file has the others of the seven, but not the coastal band."""
    if is_sentinel_2(names):
        return set(SENTINEL_2) - set(names) == {"b1"} or set(SENTINEL_2_WIDE) - set(names) == {"b1"}
    if set(_THEMATIC_MAPPER) <= set(names) or (all(names) and set(COMMON_NAMES) - set(names) == {"coastal"}):
        return True
    return len(names) == len(BANDS) - 1
