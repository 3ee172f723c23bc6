"""Files that are named by URL: the service fetches them, if its operator allows their hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import unquote

import httpx

_LINK = re.compile("https?://", re.IGNORECASE)
_USER = re.compile("(?<=://)[^/]*@")
_HOST = re.compile("[a-z0-9._-]+")


def is_link(given: Any) -> TypeGuard[str]:
    """Whether it is the URL of a file."""
    return isinstance(given, str) and _LINK.match(given) is not None


def without_query(link: str) -> str:
    """What may be shown of a URL: behind its `?` there may be a signature, before its `@` a password."""
    return _USER.sub("", re.split("[?#]", link, maxsplit=1)[0])


def base_name(link: str) -> str:
    """The last part of a URL's path."""
    return unquote(without_query(link).rpartition("/")[2])


def hosts(links: Iterable[str]) -> str:
    """The hosts of URLs, as the setting `fetch_hosts` lists them.

    Those that it cannot list are left out, and refused when they are fetched from. One named `*.example.org`
    would allow more than was asked for.
    """
    found = set()
    for link in links:
        try:
            url = httpx.URL(link)
        except (httpx.InvalidURL, UnicodeError):
            continue
        host = url.raw_host.decode("ascii").lower()
        if _HOST.fullmatch(host) and (url.port is None or url.port < 1 << 16):
            found.add(f"{url.scheme}://{host}" + ("" if url.port is None else f":{url.port}"))
    return ",".join(sorted(found))
