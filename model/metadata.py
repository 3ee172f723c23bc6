"""When and where a tile was taken, as the four cyclic codes that the network reads."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

import numpy as np
import numpy.typing as npt

from model.config import HourConvention

# Periods of the published encoding. ISO week 53 therefore lies one step past week 1: the circle is 52 weeks.
WEEKS = 52
HOURS = 24
MAX_LATITUDE = 90.0  # degrees
MAX_LONGITUDE = 180.0  # degrees

EXPECTED_DATETIME = "expected RFC 3339 such as 2020-08-02T18:31:00Z, or a date such as 2020-08-02"

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# RFC 3339 section 5.6, with the seconds and the zone left out at will, and a space allowed for the T.
_DATETIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?(?:([Zz])|([+-])(\d{2}):(\d{2}))?",
    re.ASCII,
)
_LOST_PLUS = re.compile(r":\d{2} \d{2}:\d{2}$", re.ASCII)  # a query has it as a blank
_TIFF_DATETIME = re.compile(r"(\d{4}):(\d{2}):(\d{2}) (\d{2}:\d{2}:\d{2})", re.ASCII)  # TIFF 6.0, page 31


class MetadataError(ValueError):
    """A datetime or position that cannot be used: what came and what was expected."""


@dataclass(frozen=True)
class Acquisition:
    """When a tile was taken.

    `when` is aware and in UTC, at midnight where the hour is unknown. `assumed_utc` says that the text had a
    time of day but no zone.
    """

    when: datetime
    has_hour: bool = True
    assumed_utc: bool = False

    @property
    def text(self) -> str:
        """RFC 3339 in UTC; the date alone where the hour is unknown."""
        if not self.has_hour:
            return self.when.date().isoformat()
        return self.when.isoformat().replace("+00:00", "Z")


def parse_datetime(text: str) -> Acquisition:
    """Read RFC 3339 (without a zone it is taken as UTC) or `YYYY-MM-DD` (week known, hour missing).

    Raises:
        MetadataError: any other text, or a day or time that does not exist.
    """
    text = text.strip()
    try:
        if match := _DATE.fullmatch(text):
            midnight = datetime.combine(date.fromisoformat(match[0]), time(tzinfo=UTC))
            return Acquisition(midnight, has_hour=False)
        if match := _DATETIME.fullmatch(text):
            return _from_match(match)
    except (ValueError, OverflowError) as error:
        # OverflowError: a zone that carries the first or last representable day out of range.
        raise MetadataError(f"datetime {_shown(text)}: {error}; {EXPECTED_DATETIME}") from error
    hint = "; the + of a zone is %2B in a URL" if _LOST_PLUS.search(text) else ""
    raise MetadataError(f"datetime {_shown(text)} cannot be read; {EXPECTED_DATETIME}{hint}")


def parse_tiff_datetime(text: str) -> Acquisition:
    """Read the TIFF tag DateTime, `YYYY:MM:DD HH:MM:SS`, which has no zone: UTC is assumed.

    Raises:
        MetadataError: the tag holds something else.
    """
    match = _TIFF_DATETIME.fullmatch(text.strip("\0 "))
    if match is None:
        raise MetadataError(f"TIFFTAG_DATETIME {_shown(text)} cannot be read; expected YYYY:MM:DD HH:MM:SS")
    return parse_datetime("{}-{}-{}T{}".format(*match.groups()))


def check_position(lat: float | None, lon: float | None) -> None:
    """Accept WGS 84 degrees, both or neither.

    Raises:
        MetadataError: one without the other, not finite, or beyond ±90 and ±180 degrees.
    """
    if lat is None and lon is None:
        return
    if lat is None or lon is None:
        given, missing = ("lon", "lat") if lat is None else ("lat", "lon")
        raise MetadataError(f"{given} came without {missing}; expected both or neither")
    for name, value, limit in (("lat", lat, MAX_LATITUDE), ("lon", lon, MAX_LONGITUDE)):
        if not (math.isfinite(value) and abs(value) <= limit):
            swapped = "; are lat and lon swapped?" if name == "lat" and 90 < abs(value) <= 180 else ""
            raise MetadataError(
                f"{name} is {value}; expected degrees between -{limit:g} and {limit:g} (WGS 84){swapped}"
            )


def encode(
    acquisition: Acquisition | None,
    lat: float | None,
    lon: float | None,
    *,
    hour_convention: HourConvention = "full",
) -> npt.NDArray[np.float32]:
    """Encode time and place as the published network does (arXiv 2509.10919, its repository's loader).

    Args:
        acquisition: when; None = unknown. Week and hour are those of UTC.
        lat: degrees; None = unknown (then `lon` too).
        lon: degrees.
        hour_convention: `first_digit` reads hours from 10 on as their tens digit, as the published weights
            were trained.

    Returns:
        float32 (4, 2): rows ISO week, hour, latitude, longitude; columns sin, cos. Unknown rows are zeros,
        which no known value gives.

    Raises:
        MetadataError: as `check_position`.
    """
    check_position(lat, lon)
    angles: list[float | None] = [None] * 4
    if acquisition is not None:
        when = acquisition.when.astimezone(UTC)
        angles[0] = when.isocalendar().week * 2 * math.pi / WEEKS
        if acquisition.has_hour:
            hour = when.hour
            if hour_convention == "first_digit" and hour >= 10:
                hour //= 10
            angles[1] = hour * 2 * math.pi / HOURS
    if lat is not None and lon is not None:
        angles[2], angles[3] = math.radians(lat), math.radians(lon)
    pairs = [(0.0, 0.0) if angle is None else (math.sin(angle), math.cos(angle)) for angle in angles]
    return np.array(pairs, dtype=np.float32)


def _from_match(match: re.Match[str]) -> Acquisition:
    day, hour, minute, second, fraction, zulu, sign, zone_hours, zone_minutes = match.groups()
    zone: tzinfo = UTC
    if sign:
        if int(zone_hours) > 23 or int(zone_minutes) > 59:
            raise ValueError(f"no zone {sign}{zone_hours}:{zone_minutes}")
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        zone = timezone(-offset if sign == "-" else offset)
    seconds = int(second or 0)
    clock = time(
        int(hour),
        int(minute),
        59 if seconds == 60 else seconds,  # RFC 3339 allows leap seconds
        int((fraction or "")[:6].ljust(6, "0")),
        tzinfo=zone,
    )
    when = datetime.combine(date.fromisoformat(day), clock)
    return Acquisition(when.astimezone(UTC), assumed_utc=not (zulu or sign))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
