"""How long a request may take."""

from __future__ import annotations

from service.errors import RequestError
from service.settings import Settings

HEADER = "X-Timeout-Ms"


def requested_s(header: str | None, settings: Settings) -> float | None:
    """The seconds that a client allows in the header `X-Timeout-Ms`; None if it does not say.

    Raises:
        RequestError: not a whole number of milliseconds, zero, or more than the service allows.
    """
    if header is None:
        return None
    text, most = header.strip(), int(settings.max_request_timeout_s * 1000)
    milliseconds = int(text) if text.isdecimal() and text.isascii() and len(text) <= 10 else 0
    if not 1 <= milliseconds <= most:
        raise RequestError(
            "bad-parameter",
            f"{HEADER} is {header[:40]!r}; expected a whole number of milliseconds, 1 to {most}",
        )
    return milliseconds / 1000


def timeout_s(requested_s: float | None, tiles: int, settings: Settings) -> float:
    """Seconds from a request's body to its answer: as requested, else longer for more tiles."""
    if requested_s is not None:
        return requested_s
    return settings.request_timeout_s + tiles * settings.request_timeout_per_tile_ms / 1000
