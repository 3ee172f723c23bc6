"""What can be said of a client, and of tiles in its calls, for editors and type checkers.

The service has the last word: it says which options it does not know, and what is wrong with their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from datetime import datetime as DateTime
from typing import TypedDict

import httpx

from model.outputs import Pooling
from model.units import UnitsChoice
from service.parameters import DatetimeSource, Fit, LocationSource, OnError


class Settings(TypedDict, total=False):
    """Of a client; meanings and defaults: `AsyncClient`."""

    api_key: str | None
    timeout_s: float
    max_wait_s: float
    concurrency: int
    tiles_per_request: int
    headers: dict[str, str] | None
    transport: httpx.AsyncBaseTransport | None


class _Options(TypedDict, total=False):
    """Once for all tiles; of None the service's default is taken. Meanings: `service.parameters`."""

    id: str | None
    datetime: str | DateTime | date | None
    lat: float | None
    lon: float | None
    units: UnitsChoice | None
    scale: float | None
    offset: float | None
    nodata: float | str | None
    bands: str | Sequence[str | int] | None
    location_source: LocationSource | None
    datetime_source: DatetimeSource | None
    fit: Fit | None
    stride: int | None
    max_cloud_fraction: float | None
    on_error: OnError | None


class EmbedOptions(_Options, total=False):
    """Of `embed`."""

    pooling: Pooling | None
    normalize: bool | None


class ClassifyOptions(_Options, total=False):
    """Of `classify`."""

    probe: str | None
    top_k: int | None
    threshold: float | None
    pooling: Pooling | None
