"""JSON of whatever an answer is made of."""

from __future__ import annotations

from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """UTF-8 JSON. Arrays become lists, float32 in the shortest form that reads back as the same float32.

    Text of a file or form that is not Unicode (lone surrogates) has `?` in its place.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return orjson.dumps(_unicode(value), option=orjson.OPT_SERIALIZE_NUMPY)


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return [_unicode(item) for item in value] if isinstance(value, (list, tuple)) else value
