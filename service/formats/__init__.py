"""Results → the body of an answer, in one of the formats; which one the client wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import RequestError
from service.parameters import Format


class Kind(NamedTuple):
    """A format's media type, and what its files are called."""

    media_type: str
    suffix: str


KINDS: dict[Format, Kind] = {
    "json": Kind("application/json", "json"),
    "base64": Kind("application/json", "json"),
    "ndjson": Kind("application/x-ndjson", "ndjson"),
    "npy": Kind("application/x-npy", "npy"),
    "geojson": Kind("application/geo+json", "geojson"),
    "parquet": Kind("application/vnd.apache.parquet", "parquet"),
    "geotiff-classes": Kind("image/tiff; application=geotiff", "tif"),
    "geotiff-probabilities": Kind("image/tiff; application=geotiff", "tif"),
}
# What an Accept header may choose, the preferred first. The others differ by `format` only.
_BY_MEDIA_TYPE: dict[str, Format] = {
    KINDS[name].media_type: name for name in ("json", "npy", "geojson", "parquet", "ndjson")
}

Item = dict[str, Any]
"""One entry of the answer, as the contract has it. Not yet text: `embedding` and `probabilities` are arrays,
and an item of a window that was skipped has `skipped` with the reason."""


class Head(NamedTuple):
    """What an answer says once.

    `fields` come before the items in JSON; `shape` is that of one result; `labels` are those of the probe,
    None for embeddings; `normalized` says whether embeddings have unit length; `as_nan` that a result that
    is missing gets a row of NaN.
    """

    fields: dict[str, Any]
    shape: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    normalized: bool = False
    as_nan: bool = False


class Writer(Protocol):
    """Writes an answer piece by piece, in a worker thread."""

    def add(self, items: Sequence[Item]) -> None:
        """Writes items."""

    def finish(self, summary: dict[str, int], /) -> None:
        """Writes what comes after the items."""

    def abandon(self) -> None:
        """Lets go of everything but the file: the answer is another one."""


def negotiate(wanted: Format | None, accept: str | None) -> Format:
    """The format of an answer (RFC 9110 section 12.5.1); `format=` wins over Accept.

    Raises:
        RequestError: nothing that Accept allows can be given.
    """
    if wanted is not None:
        return wanted
    if not accept or accept == "*/*":
        return "json"
    ranges = dict(_ranges(accept))
    quality = {
        media_type: next(
            (ranges[r] for r in (media_type, media_type.split("/")[0] + "/*", "*/*") if r in ranges), 0.0
        )
        for media_type in _BY_MEDIA_TYPE
    }
    best = max(quality, key=lambda media_type: quality[media_type])  # the first of equals: JSON
    if quality[best] <= 0:
        raise RequestError(
            "not-acceptable",
            f"Accept is {accept[:200]!r}; {' and '.join(_BY_MEDIA_TYPE)} can be given",
        )
    return _BY_MEDIA_TYPE[best]


def _ranges(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        found.append((media_range, quality))
    return found


def l2_normalized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit L2 norm over the last axis; zeros stay zeros. float32 (..., dim)."""
    norm = np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    return (values / np.where(norm > 0, norm, 1)).astype(np.float32)


def value(item: Item) -> NDArray[np.float32] | None:
    """The numbers of an item: its embedding, or its probabilities; None if it has none."""
    found: NDArray[np.float32] | None = item.get("embedding", item.get("probabilities"))
    return found
