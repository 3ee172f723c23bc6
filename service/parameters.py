"""The parameters of a request: one definition for query and form, for validation and documentation.

Values arrive as text. An empty one counts as missing, since that is what a form with a blank field sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.units import UnitsChoice
from service.errors import RequestError
from service.nodata import Nodata

Pooling = Literal["mean", "cls", "patch_mean", "patch_mean_std", "tokens"]
EmbedFormat = Literal["json", "base64", "ndjson", "npy", "geojson", "parquet"]
ClassifyFormat = Literal[
    "json", "ndjson", "npy", "geojson", "parquet", "geotiff-classes", "geotiff-probabilities"
]
Format = Literal[EmbedFormat, ClassifyFormat]
OnError = Literal["fail", "nan"]
Fit = Literal["crop", "resize", "grid"]
LocationSource = Literal["auto", "request", "file", "none"]
DatetimeSource = Literal["request", "tag", "none"]

_MAX_SHOWN = 80  # characters of a value that are repeated in an error

Finite = Annotated[float, Field(allow_inf_nan=False)]
_MAX_TEXT = 500  # characters
_MAX_EXACT = 2**53  # of the integers that floats tell from their neighbours
Text = Annotated[str, Field(max_length=_MAX_TEXT)]


class TileParameters(BaseModel):
    """What is said of one tile: once for all tiles of a request, or once for each."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    id: Text | None = Field(default=None, description="returned with the result; the tile's index if missing")
    datetime: Text | None = Field(
        default=None,
        description="acquisition time: RFC 3339 such as `2020-08-02T18:31:00Z` (UTC without a zone), or "
        "a date such as `2020-08-02` (hour unknown)",
    )
    lat: Finite | None = Field(
        default=None, description="latitude, WGS 84 degrees; the file's own place if missing"
    )
    lon: Finite | None = Field(default=None, description="longitude, WGS 84 degrees; both or neither")
    units: UnitsChoice = Field(
        default="auto",
        description="what the values are: `dn` (Collection 2 Level 2), `reflectance` (0 to 1), "
        "`reflectance_1e4` (reflectance times 10,000), or `auto` (the file's scale tags, else by the values)",
    )
    scale: Finite | None = Field(
        default=None, description="reflectance = value * scale + offset; instead of `units`"
    )
    offset: Finite | None = Field(default=None, description="see `scale`")
    nodata: Nodata | None = Field(
        default=None,
        description="the value, as it is stored, that means that there is nothing: a number instead of what "
        "the file declares, or `none` where that is wrong. 0 and NaN are nothing in any case",
    )
    bands: Text | None = Field(
        default=None,
        description="seven comma-separated band numbers (from 1) or band names of the file, "
        "in the order SR_B1 to SR_B7",
    )
    location_source: LocationSource = Field(
        default="auto", description="whose place is used: `auto` (the request's, else the file's)"
    )
    datetime_source: DatetimeSource = Field(
        default="request",
        description="`tag` uses the file's TIFFTAG_DATETIME, which usually is when the file was written",
    )


class RequestOptions(BaseModel):
    """What is said once for a whole request, to whichever route."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    fit: Fit | None = Field(
        default=None,
        description="how a file becomes 40 x 40 px: `crop` (centre; the default for sides of 40 to 63 px), "
        "`resize` (bilinear) or `grid` (a tile for every window of a scene)",
    )
    stride: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="px from one window to the next, for `fit=grid` (40 if missing)"
    )
    max_cloud_fraction: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="skip windows with a larger share of cloudy pixels; needs `QA_PIXEL`, a part or a band",
    )
    on_error: OnError = Field(
        default="fail",
        description="for `npy`, which has no room for errors: `fail`, or `nan` for a row of NaN for each "
        "tile that failed and each window that was skipped",
    )


class EmbedOptions(RequestOptions):
    """What is said once for a whole request to /embed."""

    pooling: Pooling = Field(
        default="mean",
        description="`mean` of all tokens, `cls` token, `patch_mean`, `patch_mean_std` (twice as long), "
        "or `tokens`",
    )
    normalize: bool = Field(default=False, description="scale to unit L2 norm (each token for `tokens`)")
    format: EmbedFormat | None = Field(
        default=None,
        description="`json`, `base64` (little-endian float32 in JSON), `ndjson` (a line for each tile), "
        "`npy`, `geojson` or `parquet` (GeoParquet); overrides the Accept header",
    )


class ClassifyOptions(RequestOptions):
    """What is said once for a whole request to /classify."""

    probe: Text | None = Field(
        default=None, description="which classifier; GET /model lists them. The first if missing"
    )
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="how many predictions of each tile; if missing, 5 of a multi-class probe and all of a "
        "multi-label one",
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="probability from which a label is `selected` (multi-label); the probe's own if missing",
    )
    pooling: Pooling | None = Field(
        default=None, description="the probe's own; another one cannot be asked of it"
    )
    format: ClassifyFormat | None = Field(
        default=None,
        description="`json`, `ndjson`, `npy` (probabilities in the order of the probe's labels), `geojson`, "
        "`parquet` (GeoParquet), or for one scene with `fit=grid` `geotiff-classes` and "
        "`geotiff-probabilities`; overrides the Accept header",
    )


PER_TILE = frozenset(TileParameters.model_fields)
METADATA = "metadata"  # the form field with all per-tile parameters as one JSON array
_Model = TypeVar("_Model", bound=BaseModel)


def parse(
    values: Mapping[str, Sequence[str]], tiles: int, options: type[_Model]
) -> tuple[list[TileParameters | RequestError], _Model]:
    """Validates the parameters of a request.

    Args:
        values: name → texts as they came, in their order. A per-tile one is given once for all tiles or once
            for each.
        tiles: number of tiles in the request.
        options: the model of what is said once, such as `EmbedOptions`.

    Returns:
        For each tile its parameters, or what is wrong with them; and the options.

    Raises:
        RequestError: an unknown name, a wrong number of values, an option that cannot be used.
    """
    known = PER_TILE | options.model_fields.keys() | {METADATA}
    if unknown := sorted(values.keys() - known):
        raise RequestError(
            "unknown-parameter",
            f"unknown {'parameter' if len(unknown) == 1 else 'parameters'} "
            f"{', '.join(map(_shown, unknown[:10]))}; known are {', '.join(sorted(known))}",
        )
    objects = _metadata_objects(values, tiles)
    once: dict[str, str] = {}
    per_tile: dict[str, Sequence[str]] = {}
    for name, texts in values.items():
        if name == METADATA:
            continue
        if name in PER_TILE:
            if len(texts) not in (1, tiles):
                raise RequestError(
                    "bad-parameter",
                    f"{name} was given {len(texts)} times, the number of tiles is {tiles}; expected once for "
                    "all tiles, or once for each in their order (empty where it has none)",
                )
            per_tile[name] = texts if len(texts) == tiles else [texts[0]] * tiles
        else:
            given = [text for text in texts if text.strip()]
            if len(set(given)) > 1:
                raise RequestError(
                    "bad-parameter",
                    f"{name} was given as {' and as '.join(map(_shown, given[:3]))}; expected one",
                )
            if given:
                once[name] = given[0]
    validated = _validate(options, once)
    if isinstance(validated, RequestError):
        raise validated
    if objects is not None:
        return [_validate_object(i, row) for i, row in enumerate(objects)], validated
    rows = [{name: texts[i] for name, texts in per_tile.items() if texts[i].strip()} for i in range(tiles)]
    return [_validate_tile(row) for row in rows], validated


def _metadata_objects(values: Mapping[str, Sequence[str]], tiles: int) -> list[Any] | None:
    """What the field `metadata` says of each tile; None where it was not given."""
    given = [text for text in values.get(METADATA, []) if text.strip()]
    if not given:
        return None
    if beside := sorted(n for n in PER_TILE & values.keys() if any(text.strip() for text in values[n])):
        raise RequestError(
            "bad-parameter", f"metadata came together with {', '.join(beside)}; expected one or the other"
        )
    if len(given) > 1:
        raise RequestError("bad-parameter", f"metadata was given {len(given)} times; expected one JSON array")
    try:
        objects = orjson.loads(given[0])
    except orjson.JSONDecodeError as error:
        raise RequestError(
            "bad-parameter", f"metadata is {_shown(given[0])}, which is not JSON: {error}"
        ) from error
    if not isinstance(objects, list) or len(objects) != tiles:
        came = f"an array of {len(objects)}" if isinstance(objects, list) else _shown(given[0])
        raise RequestError(
            "bad-parameter",
            f"metadata is {came}; expected a JSON array with one object for each of the {tiles} tiles",
        )
    return objects


def _validate_object(index: int, row: Any) -> TileParameters | RequestError:
    if not isinstance(row, dict):
        return RequestError("bad-parameter", f"metadata[{index}] is {_told(row)}; expected an object")
    given = {
        name: str(value) if name == "id" and type(value) in (int, float) else value
        for name, value in row.items()
        if value is not None and value != ""
    }
    for name, value in given.items():
        if isinstance(value, bool):  # which would count as 0 or 1
            return RequestError(
                "bad-parameter", f"{_shown_name((name,))} is {str(value).lower()}; expected no truth value"
            )
    if type(number := row.get("id")) is float and abs(number) > _MAX_EXACT:  # integers above 64 bits, too
        return RequestError(
            "bad-parameter", f"id is {number}, a number with more digits than are kept; expected a text"
        )
    return _validate_tile(given)


def _validate_tile(row: Mapping[str, Any]) -> TileParameters | RequestError:
    found = _validate(TileParameters, row)
    if isinstance(found, RequestError) and isinstance(given := row.get("id"), str):
        found.tile_id = given[:_MAX_TEXT]
    return found


def _validate(model: type[_Model], row: Mapping[str, Any]) -> _Model | RequestError:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        problems = [
            f"{_shown_name(e['loc'])} is {_told(e['input'])}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors(include_url=False, include_context=False)[:10]
        ]
        return RequestError("bad-parameter", "; ".join(problems))


def _shown_name(location: Sequence[int | str]) -> str:
    name = ".".join(map(str, location))
    return name if name in PER_TILE or name.isidentifier() else _shown(name)


def _told(value: object) -> str:
    try:
        return _shown(str(value))
    except RecursionError:  # JSON may nest deeper than Python follows
        return f"a {type(value).__name__} that nests deeply"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "...")
