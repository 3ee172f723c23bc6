"""What the service answered, typed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from service.clients.errors import ModelChangedError, ProblemError, problem_error

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an answer says of one tile or one window of a scene.

    Attributes:
        index: of the tile among those given, from 0.
        id: given, else the index; of a window with row and column.
        source: base name of the file.
        fields: everything else the service said, by the names of its API: datetime, lat, lon,
            metadata_source, footprint, crs, units, valid_fraction, cached, row, col, window ...
        warnings: `{code, message}` each.
    """

    index: int
    id: str
    source: str | None
    fields: dict[str, Any]
    warnings: list[dict[str, str]]

    @property
    def cached(self) -> bool:
        """Whether it was computed before."""
        return bool(self.fields.get("cached"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Result):
    """`values` is float32 (dim,), or (tokens, dim) for `pooling="tokens"`."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Result):
    """`predictions`, most probable first; `selected` are the labels over the threshold."""

    probe: str
    predictions: list[Prediction]
    selected: list[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """A tile that has no result, and why; `source` is the base name of its file."""

    index: int
    id: str | None
    error: Exception
    source: str | None = None


R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Answer(Sequence[R | Failure], Generic[R]):
    """The results of all tiles in their order, windows of a scene row by row.

    Attributes:
        items: a result or a failure each.
        model: name, version, digest and precision.
        summary: counts: tiles, windows, embedded, skipped_empty, failed.
    """

    items: list[R | Failure]
    model: dict[str, Any]
    summary: dict[str, int] = field(default_factory=dict)

    @property
    def results(self) -> list[R]:
        """Those that succeeded."""
        return [item for item in self.items if not isinstance(item, Failure)]

    @property
    def failures(self) -> list[Failure]:
        """Those that did not."""
        return [item for item in self.items if isinstance(item, Failure)]

    def raise_for_failures(self) -> None:
        """Raises the first failure's error, if there is one."""
        for failure in self.failures:
            raise failure.error

    def array(self) -> NDArray[np.float32]:
        """The embeddings as one array: float32 (N, dim) or (N, tokens, dim).

        Raises:
            ClientError: some tile has none.
            TypeError: these are no embeddings.
        """
        self.raise_for_failures()
        values = [item.values for item in self.items if isinstance(item, Embedding)]
        if len(values) != len(self.items):
            raise TypeError("the answer has classifications; expected embeddings")
        return np.stack(values) if values else np.empty((0, 0), np.float32)

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame with a row for each tile, or for each window of a scene, in their order.

        Columns are id, index (of the tile), source, datetime (UTC; a date is its midnight), lat, lon, of a
        window row and col, valid_fraction, with QA_PIXEL cloud_fraction, crs, units, warnings (codes) and
        error (None where there is none). Then come those of the answer: embedding_0, embedding_1 ... float32;
        or label and probability of what is most probable, selected, and the probability of each label by its
        name, NaN where `top_k` left it out. Of a tile that failed all that is unknown is NaN or None.

        Raises:
            ImportError: pandas is not installed.
            TypeError: embeddings of `pooling="tokens"`, which are no vector for each tile.
        """
        from service.clients.frame import to_dataframe

        return to_dataframe(self.items)

    def __repr__(self) -> str:
        """In a line: a notebook shows what a cell ends with, and would show thousands of vectors."""
        counts = f"{len(self.results):,} results, {len(self.failures):,} failures"
        return f"<Answer of {self.model.get('name')} {self.model.get('version')}: {counts}>"

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[R | Failure]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> R | Failure: ...

    @overload
    def __getitem__(self, index: slice) -> list[R | Failure]: ...

    def __getitem__(self, index: int | slice) -> R | Failure | list[R | Failure]:
        return self.items[index]


def decoded(text: str, dim: int) -> NDArray[np.float32]:
    """Little-endian float32 in base64 → (dim,), or (tokens, dim) where there are more."""
    values = np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32, copy=False)
    return values if values.size == dim else values.reshape(-1, dim)


def embedding(item: dict[str, Any], index: int, dim: int) -> Embedding:
    """An item of /embed, with base64 or numbers.

    Args:
        item: as the service answered; what is used is taken out of it.
        index: of the tile among all that were given.
        dim: numbers in an embedding, or in a token of it.
    """
    raw = item.pop("embedding")
    values = decoded(raw, dim) if isinstance(raw, str) else np.asarray(raw, np.float32)
    return Embedding(values=values, **_common(item, index))


def classification(item: dict[str, Any], index: int) -> Classification:
    """An item of /classify; see `embedding`."""
    return Classification(
        probe=item.pop("probe"),
        predictions=[Prediction(p["label"], p["probability"]) for p in item.pop("predictions")],
        selected=item.pop("selected", None) or [],
        **_common(item, index),
    )


def failure(item: dict[str, Any], index: int, tile_id: str | None) -> Failure:
    """An item that has an error."""
    return Failure(index, item.get("id") or tile_id, problem_error(item["error"]), item.get("source"))


def failures(error: Exception, tiles: Sequence[tuple[int, str | None, str | None]]) -> list[Failure]:
    """A failure for each tile (its index, id and source) of a request in which all of them failed."""
    own: dict[int, Exception] = {}
    if isinstance(error, ProblemError):
        own = {int(e["index"]): problem_error(e | {"request_id": error.request_id}) for e in error.errors}
    return [
        Failure(index, tile_id, own.get(i, error), source) for i, (index, tile_id, source) in enumerate(tiles)
    ]


def _common(item: dict[str, Any], index: int) -> dict[str, Any]:
    item.pop("index", None)
    return {
        "index": index,
        "id": item.pop("id"),
        "source": item.pop("source", None),
        "warnings": item.pop("warnings", []),
        "fields": item,
    }


def same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether results of both belong together."""
    return all(one.get(name) == other.get(name) for name in ("digest", "precision"))


def merged(answers: Sequence[Answer[R] | list[Failure]], model: dict[str, Any]) -> Answer[R]:
    """The answers to several requests, in the order of their tiles, as one; `model` is that of GET /model.

    Raises:
        ModelChangedError: they are of two models.
    """
    items: list[R | Failure] = []
    counts = dict.fromkeys(("tiles", "windows", "embedded", "skipped_empty", "failed"), 0)
    reference = {name: model[name] for name in ("name", "version", "digest", "precision")}
    said = [answer.model for answer in answers if isinstance(answer, Answer) and answer.model]
    for other in said:
        if not same_model(other, said[0]):
            raise ModelChangedError(said[0], other)
    if said and not same_model(said[0], reference):
        reference = said[0]
    for answer in answers:
        items += answer
        if isinstance(answer, Answer):
            for name, count in answer.summary.items():
                counts[name] = counts.get(name, 0) + count
        else:
            for name in ("tiles", "windows", "failed"):
                counts[name] += len(answer)
    return Answer(items, reference, counts)
