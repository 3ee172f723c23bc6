"""The texts of a request → its parameters, and what is wrong with them.

An empty text counts as missing, since that is what a form with a blank field sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from service.errors import RequestError
from service.parameters import MAX_TEXT, METADATA, PER_TILE, TileParameters

_MAX_SHOWN = 80  # characters of a value that are repeated in an error
_MAX_EXACT = 2**53  # of the integers that floats tell from their neighbours

_UNSAID = TileParameters()

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
    if not values:  # as with most raw bodies
        return [_UNSAID] * tiles, _all_unsaid(options)
    known = PER_TILE | options.model_fields.keys() | {METADATA}
    if unknown := sorted(values.keys() - known):
        raise _unknown([_shown(name) for name in unknown[:10]], known)
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


@cache
def _all_unsaid(options: type[_Model]) -> _Model:
    return options()


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
        found.tile_id = given[:MAX_TEXT]
    return found


def _validate(model: type[_Model], row: Mapping[str, Any]) -> _Model | RequestError:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)[:10]
        if unknown := [_shown_name(e["loc"]) for e in errors if e["type"] == "extra_forbidden"]:
            return _unknown(unknown, model.model_fields)
        problems = [
            f"{_shown_name(e['loc'])} is {_told(e['input'])}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in errors
        ]
        return RequestError("bad-parameter", "; ".join(problems))


def _unknown(shown: Sequence[str], known: Iterable[str]) -> RequestError:
    return RequestError(
        "unknown-parameter",
        f"unknown {'parameter' if len(shown) == 1 else 'parameters'} {', '.join(shown)}; known are "
        f"{', '.join(sorted(known))}",
    )


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
