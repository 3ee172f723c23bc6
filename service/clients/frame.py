"""Answers as a pandas DataFrame: a row for each tile or window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.clients.errors import ProblemError
from service.clients.results import Classification, Embedding, Failure, Result

if TYPE_CHECKING:
    import pandas

# What an answer says of a tile, by the names of the service's API, and pandas' type of it.
_FIELDS = {
    "lat": "float64",
    "lon": "float64",
    "row": "Int64",
    "col": "Int64",
    "valid_fraction": "float64",
    "cloud_fraction": "float64",
    "crs": "object",
    "units": "object",
}
_IF_SAID = ("row", "col", "cloud_fraction")  # of one tile at least


def to_dataframe(items: Sequence[Result | Failure]) -> pandas.DataFrame:
    """See `service.clients.results.Answer.to_dataframe`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas, which is not installed: pip install pandas") from error
    fields = [{} if isinstance(item, Failure) else item.fields for item in items]
    columns: dict[str, Any] = {
        "id": [item.id for item in items],
        "index": [item.index for item in items],
        "source": _texts([item.source for item in items]),
        # A date without an hour is its midnight.
        "datetime": pandas.to_datetime(
            [f.get("datetime") for f in fields], utc=True, format="ISO8601"
        ).as_unit("us"),
    }
    for name, kind in _FIELDS.items():
        if name not in _IF_SAID or any(found.get(name) is not None for found in fields):
            columns[name] = pandas.Series([found.get(name) for found in fields], dtype=kind)
    columns["warnings"] = [
        [] if isinstance(item, Failure) else [warning["code"] for warning in item.warnings] for item in items
    ]
    columns["error"] = _texts([_reason(item.error) if isinstance(item, Failure) else None for item in items])
    known = pandas.DataFrame(columns)
    if any(isinstance(item, Classification) for item in items):
        return pandas.concat([known, pandas.DataFrame(_predictions(items, known.columns))], axis=1)
    values = _values(items)
    names = [f"embedding_{i}" for i in range(values.shape[1])]
    return pandas.concat([known, pandas.DataFrame(values, columns=names)], axis=1)


def _texts(values: list[str | None]) -> Any:
    """A column that has None where there is no text: of its own accord, pandas 3 would make NaN of it."""
    import pandas

    return pandas.Series(values, dtype="object")


def _values(items: Sequence[Result | Failure]) -> NDArray[np.float32]:
    """Embeddings, float32 (N, dim); NaN for tiles without."""
    found = {i: item.values for i, item in enumerate(items) if isinstance(item, Embedding)}
    if not found:
        return np.empty((len(items), 0), np.float32)
    shape = next(iter(found.values())).shape
    if len(shape) != 1:
        raise TypeError(
            f"the embeddings are {shape[0]} tokens of {shape[1]} for each tile; expected one vector for each "
            "(array() has the tokens)"
        )
    table = np.full((len(items), *shape), np.nan, np.float32)
    for i, values in found.items():
        table[i] = values
    return table


def _predictions(items: Sequence[Result | Failure], others: Sequence[str]) -> dict[str, Any]:
    """The most probable label, those that are selected, and a column of probabilities for each label."""
    found = [item if isinstance(item, Classification) else None for item in items]
    first = [item.predictions[0] if item is not None else None for item in found]
    columns: dict[str, Any] = {
        "label": _texts([None if one is None else one.label for one in first]),
        "probability": [np.nan if one is None else one.probability for one in first],
        "selected": [[] if item is None else item.selected for item in found],
    }
    by_label = [{} if item is None else {p.label: p.probability for p in item.predictions} for item in found]
    taken = {*others, *columns}
    for label in sorted({label for row in by_label for label in row}):
        name = f"label {label}" if label in taken else label  # as in GeoParquet
        columns[name] = [row.get(label, np.nan) for row in by_label]
    return columns


def _reason(error: Exception) -> str:
    return f"{error.code}: {error.detail}" if isinstance(error, ProblemError) else str(error)
