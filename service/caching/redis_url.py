"""Checks a Redis URL without talking to the server."""

from __future__ import annotations

from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool

SCHEMES = ("redis", "rediss", "unix")
EXPECTED = "expected redis://[user:password@]host[:port][/database], rediss:// (TLS) or unix:///path"


def check(url: str) -> None:
    """Checks what the client library takes silently or complains about only once it connects.

    Raises:
        ValueError: the URL cannot be used; the message does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(
            f"its host or port cannot be read (percent-encode / ? # @ in a password); {EXPECTED}"
        ) from error
    if parts.scheme not in SCHEMES:
        raise ValueError(f"it does not begin with redis://, rediss:// or unix://; {EXPECTED}")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(f"it has no path of a socket; {EXPECTED}")
    else:
        if not parts.hostname:
            raise ValueError(f"it has no host; {EXPECTED}")
        if port == 0:
            raise ValueError(f"its port is 0; {EXPECTED}")
        if not (parts.path.strip("/") or "0").isdecimal():
            raise ValueError(f"its database is not a number; {EXPECTED}")
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)  # refuses unknown options; connects to nothing
    except Exception as error:  # the library raises of everything
        raise ValueError(f"the client library refuses it ({error}); {EXPECTED}") from error
