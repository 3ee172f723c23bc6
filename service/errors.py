"""What can go wrong with a request, and what it is answered with.

Exception
├── ServiceError            carries a problem type of the table below
│   ├── RequestError        the request cannot be understood or is too large
│   ├── OverloadedError     the queue is full; says when to come back
│   ├── UnavailableError    not ready, draining, or the engine failed
│   ├── DeadlineError       the time allowed has passed
│   └── service.http.spool.SpoolError   there is no room for the body or the answer
├── service.rasters.geotiff.GeotiffError  the file cannot be read       } each carries
├── model.tiles.TileError           no tile can be made of it     } its problem type
└── model.metadata.MetadataError    a datetime or place that is none

Answers follow RFC 9457: application/problem+json with type, title, status, detail and our request_id.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.responses import Response

from model.metadata import MetadataError
from model.tile_errors import TileError
from service.json_text import dumps
from service.rasters.geotiff import GeotiffError

PROBLEM_MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:landmoe:problem:"


class Problem(NamedTuple):
    """A row of the table: HTTP status and the type's fixed title."""

    status: int
    title: str


# The one table. A code is the last part of `type`, and the `outcome` label of the metrics.
PROBLEMS: dict[str, Problem] = {
    "malformed-body": Problem(400, "The body is not what its Content-Type says"),
    "unauthorized": Problem(401, "No API key that is known"),
    "fetch-not-allowed": Problem(403, "The service fetches no files from there"),
    "not-found": Problem(404, "There is nothing of this name"),
    "method-not-allowed": Problem(405, "The path has no such method"),
    "not-acceptable": Problem(406, "None of the accepted formats can be given"),
    "slow-body": Problem(408, "The body came too slowly"),
    "too-large": Problem(413, "Larger than the service allows"),
    "unsupported-media-type": Problem(415, "The body's media type cannot be read"),
    "not-a-tiff": Problem(415, "The file is not a TIFF"),
    "unreadable-tiff": Problem(422, "The TIFF cannot be read"),
    "wrong-band-count": Problem(422, "The file does not have the seven bands"),
    "ambiguous-bands": Problem(422, "The file's bands cannot be told apart with certainty"),
    "missing-coastal": Problem(422, "The coastal band is missing"),
    "unsupported-pixel-type": Problem(422, "The file's pixels are not real numbers"),
    "unknown-units": Problem(422, "The units of the values cannot be told with certainty"),
    "wrong-size": Problem(422, "The file does not have the size of a tile"),
    "too-cloudy": Problem(422, "The tile is cloudier than the request allows"),
    "empty-tile": Problem(422, "The tile has no valid pixel"),
    "bad-parameter": Problem(422, "A parameter has a value that cannot be used"),
    "unknown-parameter": Problem(422, "No parameter has this name"),
    "missing-tile": Problem(422, "The request has no tile"),
    "unknown-probe": Problem(422, "The model has no such probe"),
    "fetch-failed": Problem(424, "A URL did not give a file"),
    "queue-full": Problem(429, "More tiles are waiting than the service allows"),
    "internal-error": Problem(500, "A defect of the service"),
    "not-ready": Problem(503, "The service is not ready"),
    "engine-failed": Problem(503, "The model did not give a result"),
    "deadline-passed": Problem(504, "The time allowed has passed"),
    "no-room": Problem(507, "There is no room to spool the body or the answer"),
}

# Errors that the framework raises by status, not by type.
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 400: "malformed-body", 422: "bad-parameter"}


class ServiceError(Exception):
    """An error with a row in the table.

    Args:
        code: key of `PROBLEMS`.
        detail: what came and what was expected.
        headers: added to the answer.
    """

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = dict(headers or {})


class RequestError(ServiceError):
    """The request cannot be understood, or is larger than the limits.

    `tile_id` is the id of the tile that it is about, where it is about one that has an id.
    """

    tile_id: str | None = None


class OverloadedError(ServiceError):
    """The queue is full.

    Args:
        detail: how many tiles came, wait and are allowed.
        retry_after_s: when the queue should have room again, from the measured throughput.
    """

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__("queue-full", detail, {"Retry-After": str(retry_after_s)})


class UnavailableError(ServiceError):
    """The service cannot answer now: not ready, draining, or the engine failed."""

    def __init__(self, detail: str, code: str = "not-ready", retry_after_s: int = 1) -> None:
        super().__init__(code, detail, {"Retry-After": str(retry_after_s)})


class DeadlineError(ServiceError):
    """The time that a request is allowed has passed."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__("deadline-passed", f"no result within {timeout_s:g} s")


# What one tile may fail with, its companions unharmed.
TILE_ERRORS = (GeotiffError, TileError, MetadataError, RequestError)


def code_of(error: BaseException) -> str:
    """The problem type of any exception; `internal-error` for one that has none."""
    if isinstance(error, MetadataError):
        return "bad-parameter"
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code in PROBLEMS else "internal-error"


def code_of_status(status: int) -> str:
    """The problem type of a status that the framework chose; empty where it has none."""
    return _BY_STATUS.get(status, "")


def problem(code: str, detail: str, request_id: str, **extra: Any) -> dict[str, Any]:
    """The problem object of a code, RFC 9457 section 3."""
    row = PROBLEMS[code]
    return {
        "type": TYPE_PREFIX + code,
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "request_id": request_id,
        **extra,
    }


def problem_of_status(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """The problem object of a status without a row: `about:blank`, as RFC 9457 section 4.2.1 asks."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }


def problem_response(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries a problem object."""
    return Response(dumps(body), body["status"], headers=headers, media_type=PROBLEM_MEDIA_TYPE)
