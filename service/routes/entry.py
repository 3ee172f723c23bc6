"""What is looked at before the body of a request for tiles is read."""

from __future__ import annotations

from fastapi import Request

from service.batcher import Batcher
from service.http import deadline
from service.http.headers import header
from service.settings import Settings

# What is no larger is read in any case: its answer may be in the cache, and it costs less than to say no.
_SMALL_BYTES = 65_536
# A tile's 40 x 40 px of seven bands in uint16, and the tags around them.
_TYPICAL_TILE_BYTES = 25_000
_TIMEOUT = deadline.HEADER.lower().encode()


def enter(request: Request) -> None:
    """Refuses a request that could not be worked on now, before a large body is read.

    Puts `timeout_s` into the request's state: what the client allows, None if it does not say.

    Raises:
        RequestError: a timeout that is none.
        OverloadedError, UnavailableError: see `Batcher.check`.
    """
    settings: Settings = request.app.state.settings
    batcher: Batcher = request.app.state.batcher
    request.state.timeout_s = deadline.requested_s(header(request, _TIMEOUT), settings)
    length = header(request, b"content-length") or ""
    size = int(length[:20]) if length.isdecimal() else None
    if size is None or size > _SMALL_BYTES:
        batcher.check(_tiles(request, size or 0, settings))


def _tiles(request: Request, size: int, settings: Settings) -> int:
    """About how many tiles a body has: one if it is raw, else what its size says, within reason."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        return 1
    # One large file would be taken for many tiles: it must not need an empty queue.
    return max(1, min(size // _TYPICAL_TILE_BYTES, settings.max_tiles, settings.queue_size // 8))
