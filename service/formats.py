"""Results → the body of an answer: JSON with lists or base64, or npy."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import RequestError
from service.json_text import dumps
from service.parameters import Format
from service.pipeline import Embedded

JSON_MEDIA_TYPE = "application/json"
NPY_MEDIA_TYPE = "application/x-npy"
# What an Accept header may choose; base64 differs from json by `format` only.
_BY_MEDIA_TYPE: dict[str, Format] = {JSON_MEDIA_TYPE: "json", NPY_MEDIA_TYPE: "npy"}


class Answer(NamedTuple):
    """A body and its media type."""

    content: bytes
    media_type: str


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
    """Unit L2 norm over the last axis; zeros stay zeros. float32 (dim,) or (105, dim)."""
    norm = np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    return (values / np.where(norm > 0, norm, 1)).astype(np.float32)


def to_json(
    head: dict[str, Any], items: Sequence[dict[str, Any]], summary: dict[str, int], *, as_base64: bool
) -> Answer:
    """The answer of the contract; `embedding` of an item is still an array here.

    Args:
        head: model, pooling and dim.
        items: one for each tile, with an array under `embedding`, or an error.
        summary: counts.
        as_base64: little-endian float32 as base64 instead of lists of numbers.
    """
    data = [_with_base64(item) for item in items] if as_base64 else items
    return Answer(dumps({**head, "data": data, "summary": summary}), JSON_MEDIA_TYPE)


def to_npy(results: Sequence[Embedded], normalize: bool) -> Answer:
    """float32 (N, dim) or (N, 105, dim) in the NPY format, version 1.0."""
    values = np.stack([result.values for result in results])
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, l2_normalized(values) if normalize else values, allow_pickle=False)
    return Answer(buffer.getvalue(), NPY_MEDIA_TYPE)


def _with_base64(item: dict[str, Any]) -> dict[str, Any]:
    if "embedding" not in item:
        return item
    values = np.ascontiguousarray(item["embedding"], dtype="<f4")
    return {**item, "embedding": base64.b64encode(values.data).decode("ascii")}
