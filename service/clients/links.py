"""Files that are named by URL: the service fetches them, if its operator allows their hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

_LINK = re.compile("https?://", re.IGNORECASE)


def is_link(given: Any) -> TypeGuard[str]:
    """Whether it is the URL of a file."""
    return isinstance(given, str) and _LINK.match(given) is not None


def without_query(link: str) -> str:
    """What may be shown of a URL: behind its `?` there may be a signature."""
    return re.split("[?#]", link, maxsplit=1)[0]


def base_name(link: str) -> str:
    """The last part of a URL's path."""
    return unquote(without_query(link).rpartition("/")[2])


def hosts(links: Iterable[str]) -> str:
    """The hosts of URLs, as the setting `fetch_hosts` lists them."""
    found = set()
    for link in links:
        parts = urlsplit(link)
        found.add(f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}")
    return ",".join(sorted(found))
