"""The body of an answer → typed results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
import orjson

from service.clients.errors import TransportError
from service.clients.results import (
    Answer,
    Failure,
    Result,
    classification,
    embedding,
    failure,
)

R = TypeVar("R", bound=Result)
NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Reader(Generic[R]):
    """How the answers of a route are read, and the format they are asked for in."""

    wire_format: str
    result: Callable[[dict[str, Any], int, int], R]

    def read(self, response: httpx.Response, indices: Sequence[int]) -> Answer[R]:
        """The results of one request.

        Args:
            response: JSON or NDJSON.
            indices: of the request's tiles among all that were given.

        Raises:
            TransportError: the answer is none of this service.
        """
        try:
            if response.headers.get("content-type", "").startswith(NDJSON):
                rows = [orjson.loads(line) for line in response.content.splitlines() if line]
                head: dict[str, Any] = {
                    "summary": counted(response.headers.get("x-summary", "")),
                    "model": model_of(response),
                }
            else:
                head = orjson.loads(response.content)
                rows = head["data"]
            items = [self._item(row, indices, int(head.get("dim", 0))) for row in rows]
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError) as error:
            raise TransportError(f"{response.request.url} gave an answer that cannot be read") from error
        return Answer(items, head.get("model", {}), head.get("summary", {}))

    def _item(self, row: dict[str, Any], indices: Sequence[int], dim: int) -> R | Failure:
        index = indices[row["index"]]
        if row.get("error") is not None:
            return failure(row, index, None)
        row.pop("error", None)
        return self.result(row, index, dim)


def model_of(response: httpx.Response) -> dict[str, str]:
    """Digest and precision of what computed, as the header `X-Model` has them; empty without it."""
    pairs = (part.partition("=") for part in response.headers.get("x-model", "").split(",") if part)
    return {name.strip(): text for name, _, text in pairs}


def counted(text: str) -> dict[str, int]:
    """Counts as the headers `X-Summary` (of a scene's windows) and `X-Warnings` have them."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name.strip(): int(number) for name, _, number in pairs}


of_embed = Reader("base64", embedding)
of_classify = Reader("json", lambda item, index, _: classification(item, index))
