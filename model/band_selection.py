"""Which seven bands of a file are SR_B1 to SR_B7: by name, by order, or as the request says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from model.band_names import (
    LANDSAT,
    MAX_TEXT,
    NONE_OF_THE_SEVEN,
    PLAIN,
    SENTINEL_2,
    SENTINEL_2_WIDE,
    is_sentinel_2,
    lacks_coastal,
    normal,
    position_of,
)
from model.band_refusals import came, cut, wrong_count
from model.bands import BANDS, COMMON_NAMES
from model.tile_errors import TileError, TileWarning

NUM_BANDS = len(BANDS)
_IN_ORDER = tuple(range(1, NUM_BANDS + 1))
_POSITIONS = range(NONE_OF_THE_SEVEN, NUM_BANDS)  # a B8 is none that is known: Sentinel-2 has one, too

_MISSING_COASTAL = (
    "the coastal band (0.44 µm; SR_B1 of Landsat 8/9, B01 of Sentinel-2) is missing. TM and ETM+ lack it, "
    "and their order differs (their SR_B1 is blue). Send a file with all seven of SR_B1..SR_B7"
)


def select_bands(
    count: int,
    descriptions: Sequence[str | None] = (),
    bands: str | None = None,
    *,
    alpha: bool = False,
    source: str | None = None,
) -> tuple[int, ...]:
    """Choose the seven bands of a file.

    Args:
        count: bands in the file.
        descriptions: their names, None or empty where a band has none.
        bands: the request's choice, seven comma-separated 1-based indices or names; None or blank = decide by
            the names where all seven are named, else by order where there are exactly seven.
        alpha: whether the last band calls itself alpha. Then it is a mask, and chosen only if it is asked for
            or has the name of one of the seven.
        source: the file's name, used in messages only.

    Returns:
        Seven 1-based indices in the order SR_B1..SR_B7.

    Raises:
        TileError: `wrong-band-count`, `missing-coastal`, `ambiguous-bands` (with a ready `bands=`), or
            `bad-parameter` for a `bands` that cannot be used.
    """
    if bands is not None and bands.strip():
        return _as_asked(bands, _names(count, descriptions))
    if usual := _usual(count, tuple(text and text[:MAX_TEXT] for text in descriptions), alpha):
        return usual
    names = _names(count, descriptions)
    if masked := alpha and _is_mask(names):
        names[-1] = "alpha"
    if lacks_coastal(names):
        raise TileError("missing-coastal", f"{came(names)}: {_MISSING_COASTAL}")
    if found := _find(names, PLAIN):
        if is_sentinel_2(names):
            raise _ambiguous(names, landsat=found)
        return found
    if is_sentinel_2(names):
        raise _ambiguous(names)
    if NUM_BANDS in (count, count - masked):
        _check_order(names[:NUM_BANDS])
        return _IN_ORDER
    raise TileError("wrong-band-count", wrong_count(names, count - masked, source))


def contradiction_warning(
    chosen: Sequence[int], count: int, descriptions: Sequence[str | None] = ()
) -> tuple[TileWarning, ...]:
    """Warn of bands that were asked for and are by their names others, or none of the seven.

    Args:
        chosen: as `select_bands` returned them; those that it chose itself contradict no names.
        count: bands in the file.
        descriptions: their names.
    """
    names = _names(count, descriptions)
    wrong = [
        f"{names[band - 1].upper()} as {BANDS[index]}"
        for index, band in enumerate(chosen)
        if (position := position_of(names[band - 1])) not in (None, index) and position in _POSITIONS
    ]
    if not wrong:
        return ()
    return (
        TileWarning(
            "contradicted-names", f"bands takes {cut(', '.join(wrong))}; expected SR_B1 to SR_B7 in order"
        ),
    )


@lru_cache(maxsize=16)
def _usual(count: int, descriptions: tuple[str | None, ...], alpha: bool) -> tuple[int, ...] | None:
    """The bands of a file that needs no thought: named as Landsat's, or seven without any name.

    Kept, because most files are named as the one before, and names take longer than anything else here.
    """
    names = _names(count, descriptions)
    for convention in (LANDSAT, COMMON_NAMES):
        if found := _find(names, convention):
            return found
    seen = names[:-1] if alpha and _is_mask(names) else names
    return _IN_ORDER if len(seen) == NUM_BANDS and not any(seen) else None


def _is_mask(names: list[str]) -> bool:
    """Whether a last band that calls itself alpha is one: not by its name a band of the seven."""
    return position_of(names[-1]) in (None, NONE_OF_THE_SEVEN)


def _names(count: int, descriptions: Sequence[str | None]) -> list[str]:
    names = [normal(text) for text in descriptions][:count]
    return names + [""] * (count - len(names))


def _as_asked(bands: str, names: list[str]) -> tuple[int, ...]:
    wanted = [part.strip() for part in bands[: MAX_TEXT + 1].split(",")]
    if len(wanted) != NUM_BANDS or len(bands) > MAX_TEXT:
        raise TileError(
            "bad-parameter",
            f"bands={cut(bands)!r} names {len(wanted)} bands; expected seven comma-separated "
            f"indices from 1 or names, in the order {', '.join(BANDS)}",
        )
    chosen = tuple(_index_of(part, names) for part in wanted)
    for index in chosen:
        if chosen.count(index) > 1:
            raise TileError("bad-parameter", f"bands={cut(bands)!r} uses band {index} more than once")
    return chosen


def _index_of(part: str, names: list[str]) -> int:
    if part.isdecimal() and part.isascii():
        index = int(part[:9])
        if not 1 <= index <= len(names):
            raise TileError("bad-parameter", f"bands: no band {cut(part)}; {came(names)}, counted from 1")
        return index
    found = [index for index, name in enumerate(names, start=1) if name and name == normal(part)]
    if len(found) != 1:
        what = "no band is" if not found else f"bands {', '.join(map(str, found))} are all"
        raise TileError(
            "bad-parameter", f"bands: {what} named {cut(part)!r}; {came(names)}; give indices from 1"
        )
    return found[0]


def _find(names: list[str], convention: Sequence[str]) -> tuple[int, ...] | None:
    """Where each name of the convention is, if every one is there exactly once."""
    if any(names.count(name) != 1 for name in convention):
        return None
    return tuple(names.index(name) + 1 for name in convention)


def _ambiguous(names: list[str], landsat: tuple[int, ...] | None = None) -> TileError:
    sentinel = _find(names, SENTINEL_2) or _find(names, SENTINEL_2_WIDE)
    choices = [
        f"{what}, send bands={','.join(map(str, found))}"
        for what, found in (
            ("if this is Sentinel-2", sentinel),
            ("if this is Landsat 8/9 or HLS L30", landsat),
        )
        if found
    ]
    if not choices:
        missing = ", ".join(name.upper() for name in SENTINEL_2 if names.count(name) != 1)
        choices = [f"the Sentinel-2 bands nearest to SR_B1..SR_B7 are not all there once: {missing}"]
    return TileError(
        "ambiguous-bands",
        f"{came(names)}, which Sentinel-2 and Landsat number differently: {'; '.join(choices)}",
    )


def _check_order(names: list[str]) -> None:
    """Refuse seven bands whose names, as far as they are known, contradict the order SR_B1..SR_B7."""
    known = [position_of(name) for name in names]
    if all(position in (None, index) for index, position in enumerate(known)):
        return
    if len(set(known)) == 1 and known[0] != NONE_OF_THE_SEVEN:  # a word that stands in all, as in blue_nile_1
        return
    if sorted(position for position in known if position is not None) == list(range(NUM_BANDS)):
        order = ",".join(str(known.index(position) + 1) for position in range(NUM_BANDS))
        hint = f"By their names, send bands={order}"
    else:
        hint = "Send bands= with the seven indices"
    raise TileError(
        "ambiguous-bands",
        f"{came(names)}, whose names contradict the expected order {', '.join(BANDS)}. {hint}; "
        "bands=1,2,3,4,5,6,7 if the names are wrong and the order is right",
    )
