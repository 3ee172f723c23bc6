"""Where the sun stands: what is seen in reflected light was not seen at night."""

from __future__ import annotations

import math
from datetime import datetime


def elevation(when: datetime, lat: float, lon: float) -> float:
    """Degrees above the horizon, without refraction, to a fraction of a degree (Spencer's series of 1971).

    Args:
        when: UTC.
        lat: degrees.
        lon: degrees.
    """
    hours = when.hour + when.minute / 60 + when.second / 3600
    year = 2 * math.pi * (when.timetuple().tm_yday - 1 + hours / 24) / 365.2425
    declination = (
        0.006918
        - 0.399912 * math.cos(year)
        + 0.070257 * math.sin(year)
        - 0.006758 * math.cos(2 * year)
        + 0.000907 * math.sin(2 * year)
    )
    equation = (  # of time: the radians that the sun is before the clock of its meridian
        0.000075
        + 0.001868 * math.cos(year)
        - 0.032077 * math.sin(year)
        - 0.014615 * math.cos(2 * year)
        - 0.040849 * math.sin(2 * year)
    )
    angle = math.radians(15 * (hours - 12) + lon) + equation
    here = math.radians(lat)
    height = math.sin(here) * math.sin(declination) + math.cos(here) * math.cos(declination) * math.cos(angle)
    return math.degrees(math.asin(min(1.0, max(-1.0, height))))
