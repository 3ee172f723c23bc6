"""What a client's call may end with.

InputError                  what a command line asks for
ClientError
├── TransportError          no answer: refused, cut off, timed out
├── ModelChangedError       the service's model is another one than before
├── UnusableTileError       what was given is no file, array or delivery that could be sent
└── ProblemError            the service answered with a problem
    ├── AuthenticationError     401
    ├── TooLargeError           413
    ├── TileProblemError        415, 422, 424: the file, its URL, or what was said of it
    ├── OverloadedError         429  } worth trying again;
    ├── UnavailableError        502, 503  } the client does
    └── DeadlineError           504  }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson

_PREFIX = "urn:landmoe:problem:"
_MAX_TEXT = 200  # characters of an answer that is no problem object


class ClientError(Exception):
    """Base of what the client raises."""


class TransportError(ClientError):
    """The service did not answer; the cause is httpx's error."""


class ModelChangedError(ClientError):
    """Answers to one call came from two models, whose results do not belong together."""

    def __init__(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        one, other = (f"{str(m.get('digest'))[:12]} ({m.get('precision')})" for m in (first, second))
        super().__init__(
            f"answers came from the models {one} and {other}: the service has changed its model, or its "
            "replicas have two; ask again, and for everything"
        )


class UnusableTileError(ClientError, ValueError):
    """What was given cannot be sent as a tile."""


class InputError(ValueError):
    """The command line asks for what cannot be done; says what was expected."""


class ProblemError(ClientError):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: of HTTP.
        code: last part of the problem's type, such as `empty-tile`; empty where it has none.
        detail: what came and what was expected.
        request_id: to look for in the service's log.
        errors: `{index, type, status, detail}` of each tile where all of them failed.
        retry_after_s: when to come back, where the service says so.
    """

    def __init__(self, body: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = int(body.get("status", 0))
        self.code = str(body.get("type", "")).removeprefix(_PREFIX)
        self.detail = str(body.get("detail", ""))
        self.request_id = str(body.get("request_id", ""))
        self.errors: list[dict[str, Any]] = list(body.get("errors", []))
        self.body = dict(body)
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.detail or body.get('title', '')} ({self.status} {self.code})")

    def __reduce__(self) -> tuple[Any, ...]:
        """As it was made, for copies and other processes: Exception would make it of its message."""
        return type(self), (self.body, self.retry_after_s)


class AuthenticationError(ProblemError):
    """No API key, or one that the service does not know."""


class TooLargeError(ProblemError):
    """Larger than the service allows."""


class TileProblemError(ProblemError):
    """The file, or what was said of it, cannot be used."""


class OverloadedError(ProblemError):
    """More tiles wait than the service allows."""


class UnavailableError(ProblemError):
    """The service is starting, stopping, or its engine failed."""


class DeadlineError(ProblemError):
    """The time allowed has passed."""


RETRIED = (TransportError, OverloadedError, UnavailableError, DeadlineError)

_BY_STATUS: dict[int, type[ProblemError]] = {
    401: AuthenticationError,
    413: TooLargeError,
    415: TileProblemError,
    422: TileProblemError,
    424: TileProblemError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineError,
}


def problem_error(body: Mapping[str, Any], retry_after_s: float | None = None) -> ProblemError:
    """The error of a problem object."""
    return _BY_STATUS.get(int(body.get("status", 0)), ProblemError)(body, retry_after_s)


def error_of(response: httpx.Response) -> ProblemError:
    """The error of an answer whose body was read, also of one that something in between made."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or "status" not in body:
        came = " ".join(response.text.split())[:_MAX_TEXT]
        body = {
            "status": response.status_code,
            "title": response.reason_phrase,
            "detail": f"{response.request.url} answered {response.status_code} {response.reason_phrase}, "
            f"not with a problem of this service: {came!r}",
        }
    return problem_error(body, _retry_after_s(response))


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds; the service sends no dates."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def first_of(errors: BaseExceptionGroup[Any]) -> BaseException:
    """One of the exceptions that tasks ended with."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
