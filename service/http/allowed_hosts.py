"""Which hosts an operator lets the service fetch files from, and whether a URL is at one of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.errors import RequestError

if TYPE_CHECKING:
    from httpx import URL

# A host, or below a domain of at least two names any host; a port that is not the scheme's own.
_ENTRY = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<below>\*\.)?(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS = {"https": 443, "http": 80}
_MAX_PORT = 65_535
_MAX_URL = 4096  # characters; signed ones have some hundreds
EXPECTED_URL = "expected a URL such as https://example.org/tile.tif"


class AllowedHosts:
    """What the setting `fetch_hosts` says.

    Args:
        text: hosts, separated by commas: `data.example.org`, `*.example.org` for all below it, with a port
            where it is not the usual one, with `http://` before it where there is no TLS. None for no host.

    Raises:
        ValueError: one of them is none; says which.
    """

    def __init__(self, text: str | None) -> None:
        self._exact: set[tuple[str, str, int]] = set()
        self._below: set[tuple[str, str, int]] = set()
        for entry in filter(None, (part.strip().lower() for part in (text or "").split(","))):
            found = _ENTRY.fullmatch(entry)
            port = int(found["port"] or 0) if found else 0
            if found is None or (found["below"] and "." not in found["host"]) or port > _MAX_PORT:
                raise ValueError(
                    f"{entry[:100]!r} is no host to fetch from; expected one such as data.example.org or "
                    "*.example.org"
                )
            scheme = found["scheme"] or "https"
            place = (scheme, found["host"], port or _PORTS[scheme])
            (self._below if found["below"] else self._exact).add(place)

    def __bool__(self) -> bool:
        return bool(self._exact or self._below)

    def check(self, text: str) -> URL:
        """A URL that may be asked for, without its fragment.

        Raises:
            RequestError: it is no URL, or at another host. What stands behind `?` is not repeated: it may be
                a signature.
        """
        if not self:
            raise RequestError(
                "fetch-not-allowed",
                "a URL came, and this service fetches no files; expected the file itself, or an operator who "
                "sets LANDMOE_FETCH_HOSTS",
            )
        import httpx

        if len(text) > _MAX_URL:
            raise RequestError(
                "bad-parameter", f"a URL of {len(text):,} characters came; expected at most {_MAX_URL:,}"
            )
        try:
            url = httpx.URL(text)
            _ = url.host  # which is decoded only now: not every xn-- is a name
        except (httpx.InvalidURL, UnicodeError) as error:
            raise RequestError("bad-parameter", f"a URL cannot be read: {error}; {EXPECTED_URL}") from error
        if url.userinfo:
            raise RequestError("bad-parameter", f"the URL has a user in it; {EXPECTED_URL}")
        host = url.raw_host.decode("ascii").lower()
        port = _PORTS.get(url.scheme, 0) if url.port is None else url.port
        domains = [host[i + 1 :] for i, letter in enumerate(host) if letter == "."]
        if (url.scheme, host, port) not in self._exact and not any(
            (url.scheme, domain, port) in self._below for domain in domains
        ):
            place = f"{url.scheme[:20]}://{host[:255]}" + ("" if url.port is None else f":{port}")
            raise RequestError(
                "fetch-not-allowed",
                f"the URL is at {place}, from where this service fetches nothing; expected a host of "
                "LANDMOE_FETCH_HOSTS",
            )
        return url.copy_with(fragment=None)
