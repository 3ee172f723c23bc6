"""The shapes of the answers, with examples. They document; answers are written by `service.formats`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.outputs import Pooling

_EXAMPLE_EMBEDDING: Any = [0.4312, -1.0561, 0.0873]


class Schema(BaseModel):
    """No other fields than those that are said."""

    model_config = ConfigDict(extra="forbid")


class ProblemOfTile(Schema):
    """What is wrong with one of the tiles that all failed."""

    index: int = Field(description="of the tile in the request, from 0")
    type: str
    status: int
    detail: str


class ProblemModel(BaseModel):
    """An error, RFC 9457."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:landmoe:problem:not-a-tiff",
                "title": "The file is not a TIFF",
                "status": 415,
                "detail": "the 2,048 bytes begin with b'\\x89PNG'; expected a GeoTIFF",
                "request_id": "0a3f5c1e7d9b4e0f8a6c2d4b1e3f5a7c",
            }
        },
    )
    type: str = Field(
        description="`urn:landmoe:problem:` and the kind of error; about:blank for what HTTP itself refuses"
    )
    title: str
    status: int
    detail: str = Field(description="what came, and what was expected")
    request_id: str
    errors: list[ProblemOfTile] = Field(
        default=[], description="of a request all of whose tiles failed: what each failed with; else missing"
    )


class ModelReference(Schema):
    """Which model gave an answer."""

    name: str = Field(examples=["landmoe-s"])
    version: str = Field(examples=["1.0.0"])
    digest: str = Field(description="SHA-256 of the bundle")
    precision: str = Field(examples=["fp32"])


class MetadataSource(Schema):
    """Whose datetime, hour and location were used."""

    datetime: Literal["request", "file", "tag", "missing"] = Field(
        description="file: of a delivery's MTL, or the tag ACQUISITION_DATETIME"
    )
    hour: Literal["request", "file", "tag", "missing"]
    location: Literal["request", "file", "missing"]


class TileNote(Schema):
    """Something to know about a tile that was embedded all the same."""

    code: str
    message: str


class Footprint(Schema):
    """GeoJSON, WGS 84, of the pixels used."""

    type: Literal["Polygon", "MultiPolygon"] = Field(description="MultiPolygon across the antimeridian")
    coordinates: list[Any]


class _Tile(Schema):
    index: int = Field(description="of the tile in the request, from 0")
    id: str = Field(description="as given, else the index; with row and column for a window of a grid")
    source: str | None = Field(description="base name of the uploaded file")
    datetime: str | None = Field(description="as used, UTC; a date where the hour is unknown")
    lat: float | None
    lon: float | None
    metadata_source: MetadataSource
    footprint: Footprint | None
    crs: str | None
    units: str
    valid_fraction: float = Field(description="share of valid pixels in what the network saw")
    cached: bool
    warnings: list[TileNote]
    row: int | None = Field(default=None, description="of the window in a grid, from 0")
    col: int | None = Field(default=None, description="of the window in a grid, from 0")
    window: list[int] | None = Field(default=None, description="row_off, col_off, height, width; px")
    cloud_fraction: float | None = Field(
        default=None,
        description="share of the valid pixels that QA_PIXEL calls cloud, dilated cloud or cirrus",
    )
    quality: dict[str, float] | None = Field(
        default=None, description="share of all pixels with each flag of QA_PIXEL"
    )


class Item(_Tile):
    """One tile's embedding."""

    embedding: list[float] | list[list[float]] | str = Field(
        description="`dim` numbers; 105 lists of them for `pooling=tokens`; a string for `format=base64`",
    )


class Prediction(Schema):
    """A label and how probable it is."""

    label: str
    probability: float


class Classified(_Tile):
    """One tile's predictions."""

    probe: str
    predictions: list[Prediction] = Field(description="the most probable first")
    selected: list[str] = Field(description="labels over the threshold; of a multi-class probe the first one")


class Failed(Schema):
    """A tile that could not be embedded, while others of its request could."""

    index: int
    id: str = Field(description="given, else the index; of a window with row and column")
    source: str | None = Field(description="base name of the file, as far as the request said it")
    row: int | None = None
    col: int | None = None
    error: ProblemModel


class Summary(Schema):
    """Counts over a whole request."""

    tiles: int
    windows: int
    embedded: int
    skipped_empty: int
    failed: int
    skipped_cloudy: int | None = Field(default=None, description="given with `max_cloud_fraction`")


class EmbedResponse(Schema):
    """The answer of /embed."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "model": {
                    "name": "landmoe-s",
                    "version": "1.0.0",
                    "digest": "5f0c3a7e" * 8,
                    "precision": "fp32",
                },
                "pooling": "mean",
                "dim": 144,
                "data": [
                    {
                        "index": 0,
                        "id": "0",
                        "source": "tile.tif",
                        "embedding": _EXAMPLE_EMBEDDING,
                        "datetime": "2020-08-02T18:31:00Z",
                        "lat": 53.9172,
                        "lon": -114.2051,
                        "metadata_source": {"datetime": "request", "hour": "request", "location": "file"},
                        "footprint": {
                            "type": "Polygon",
                            "coordinates": [
                                [
                                    [-114.2143, 53.9118],
                                    [-114.1959, 53.9118],
                                    [-114.1959, 53.9226],
                                    [-114.2143, 53.9226],
                                    [-114.2143, 53.9118],
                                ]
                            ],
                        },
                        "crs": "EPSG:32611",
                        "units": "dn",
                        "valid_fraction": 1.0,
                        "cached": False,
                        "warnings": [],
                    }
                ],
                "summary": {"tiles": 1, "windows": 1, "embedded": 1, "skipped_empty": 0, "failed": 0},
            }
        },
    )
    model: ModelReference
    pooling: Pooling
    dim: int = Field(description="numbers in an embedding, or in one token of it")
    data: list[Item | Failed]
    summary: Summary


class ClassifyResponse(Schema):
    """The answer of /classify."""

    model: ModelReference
    pooling: Pooling
    dim: int = Field(description="number of labels")
    probe: str
    task: Literal["multi-label", "multi-class"]
    threshold: float | None = Field(default=None, description="that `selected` was made with; multi-label")
    data: list[Classified | Failed]
    summary: Summary
