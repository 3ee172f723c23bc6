"""The parameters of a request: one definition for query and form, for validation and documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.outputs import Pooling
from model.units import UnitsChoice
from service.nodata import Nodata

EmbedFormat = Literal["json", "base64", "ndjson", "npy", "geojson", "parquet"]
ClassifyFormat = Literal[
    "json", "ndjson", "npy", "geojson", "parquet", "geotiff-classes", "geotiff-probabilities"
]
Format = Literal[EmbedFormat, ClassifyFormat]
OnError = Literal["fail", "nan"]
Fit = Literal["crop", "resize", "grid"]
LocationSource = Literal["auto", "request", "file", "none"]
DatetimeSource = Literal["request", "tag", "none"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
MAX_TEXT = 500  # characters
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class TileParameters(BaseModel):
    """What is said of one tile: once for all tiles of a request, or once for each."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    id: Text | None = Field(default=None, description="returned with the result; the tile's index if missing")
    datetime: Text | None = Field(
        default=None,
        description="acquisition time: RFC 3339 such as `2020-08-02T18:31:00Z` (UTC without a zone), or "
        "a date such as `2020-08-02` (hour unknown); what a delivery's MTL or the file's tag "
        "ACQUISITION_DATETIME says if missing",
    )
    lat: Finite | None = Field(
        default=None,
        description="latitude, WGS 84 degrees; the file's own place if missing",
        json_schema_extra={"minimum": -90, "maximum": 90},  # checked where it is used, with better words
    )
    lon: Finite | None = Field(
        default=None,
        description="longitude, WGS 84 degrees; both or neither",
        json_schema_extra={"minimum": -180, "maximum": 180},
    )
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
