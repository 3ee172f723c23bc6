"""`nodata`: the value, as it is stored, by which a request says that a file has nothing there."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ValidationError, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from model.tile_errors import TileWarning
from service.rasters.raster_header import Header

NONE: Literal["none"] = "none"
# A text, since these have no number in JSON, of which keys of the cache are made.
NotFinite = Literal["nan", "inf", "-inf"]


def _read(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        value = validate(given.strip() if isinstance(given, str) else given)
    except ValidationError as error:  # one message, not one for each kind of value
        raise PydanticCustomError("nodata", "expected a number, or 'none'") from error
    return value if isinstance(value, str) or math.isfinite(value) else str(value)


Nodata = Annotated[
    float | Literal["none"] | NotFinite, WrapValidator(_read), WithJsonSchema({"type": "string"})
]
"""A number, or `none`: what the file declares does not count."""


def declare(header: Header, nodata: Nodata | None) -> None:
    """Has a request's word stand for that of the file; None leaves the file's."""
    if nodata is not None:  # what is not finite is missing in every file, and needs no word
        header.nodata = None if isinstance(nodata, str) else nodata


def warning(nodata: Nodata | None, dtype: str) -> tuple[TileWarning, ...]:
    """Of a value that no pixel of the type can have."""
    if nodata is None or nodata == NONE or (kind := np.dtype(dtype)).kind == "f":
        return ()
    value = float(nodata)
    if value.is_integer() and np.iinfo(kind).min <= value <= np.iinfo(kind).max:
        return ()
    return (
        TileWarning(
            "unused-parameter",
            f"nodata is {value:.15g}, which no pixel of the file can be: they are {dtype}",
        ),
    )
