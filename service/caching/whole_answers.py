"""Answers that were given before, for requests that come again as they were: nothing is worked out anew.

Only hits are kept: their text is what the next request of the kind would get, byte by byte.
"""

from __future__ import annotations

import hashlib
from typing import get_args

from starlette.requests import Request

from service.cache import Cache
from service.files import File, Source
from service.http.headers import header, listed
from service.parameters import Format

_MAX_BYTES = 131_072  # hashing this much takes 0.1 ms: not on the event loop for more
_FORMATS: tuple[Format, ...] = tuple(
    name for literal in get_args(Format) for name in (get_args(literal) or (literal,))
)


class WholeAnswers:
    """Whole answers by everything of the request that they depend on.

    Args:
        rules: what they depend on besides; see `aliases.rules`.
        cache: where they are kept.
    """

    def __init__(self, rules: bytes, cache: Cache) -> None:
        self._rules = hashlib.sha256(rules)
        self._cache = cache

    def key(self, request: Request, files: list[Source]) -> bytes | None:
        """The key of a request's answer; None if it is not one that is kept: a form, or a large file."""
        file = files[0]
        if not (isinstance(file, File) and isinstance(file.data, bytes)) or file.source is not None:
            return None
        media_type = (header(request, b"content-type") or "").lower()
        if len(file.data) > _MAX_BYTES or media_type.startswith("multipart"):
            return None
        scope = request.scope
        path = scope["route"].path.encode()
        query: bytes = scope["query_string"]
        accept = (listed(request, b"accept") or "").encode("latin-1")  # as it came
        state = self._rules.copy()
        state.update(b"%d:%s%d:%s%d:%s" % (len(path), path, len(query), query, len(accept), accept))
        state.update(file.data)
        return b"landmoe:answer:" + state.digest()

    def get(self, key: bytes) -> tuple[bytes, Format, str] | None:
        """The text of an answer, its format and its counts of warnings; None if it is not there."""
        if (found := self._cache.get_answer(key)) is None:
            return None
        warned, _, content = found[1:].partition(b"\0")
        return content, _FORMATS[found[0]], warned.decode()

    def put(self, key: bytes, content: bytes, format: Format, warned: str) -> None:  # noqa: A002  # the contract's word
        """Keeps an answer."""
        self._cache.put_answer(key, bytes([_FORMATS.index(format)]) + warned.encode() + b"\0" + content)
