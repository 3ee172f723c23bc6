"""API keys: which are known, and whether one is among them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

MIN_LENGTH = 16  # characters; shorter ones can be tried out


class ApiKeyError(ValueError):
    """Keys that cannot be used; never repeats one."""


class ApiKeys:
    """The keys that are let in; none at all lets everyone in.

    Args:
        keys: their texts. Only their digests are kept.

    Raises:
        ApiKeyError: a key is too short, or cannot be sent in a header.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        texts = list(keys)
        for number, key in enumerate(texts, start=1):
            if len(key) < MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise ApiKeyError(
                    f"API key number {number} has {len(key)} characters; expected at least {MIN_LENGTH} of "
                    "printable ASCII without spaces, such as `openssl rand -hex 24` prints"
                )
        self._digests = [sha256(key.encode()).digest() for key in texts]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def knows(self, given: str) -> bool:
        """Whether a key is known. Takes the same time whichever it is, and however much of it is right."""
        digest = sha256(given.encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in self._digests:  # all of them: no early end
            found |= hmac.compare_digest(known, digest)
        return found


def load(keys: str | None, file: Path | None) -> ApiKeys:
    """The keys of the settings.

    Args:
        keys: separated by commas.
        file: one key on each line; what follows a `#` is a comment.

    Raises:
        ApiKeyError: the file cannot be read, one of the two has no key, or a key cannot be used.
    """
    texts = [key.strip() for key in (keys or "").split(",") if key.strip()]
    if keys and not texts:  # such as "$A,$B" where neither is set: it must not open the service to everyone
        raise ApiKeyError("LANDMOE_API_KEYS has no key; expected one or more, separated by commas")
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiKeyError(f"LANDMOE_API_KEYS_FILE cannot be read: {error}") from error
        found = [key for line in lines if (key := line.partition("#")[0].strip())]
        if not found:  # an empty file must not open the service to everyone
            raise ApiKeyError(f"LANDMOE_API_KEYS_FILE: {file} has no key; expected one on each line")
        texts += found
    return ApiKeys(texts)
