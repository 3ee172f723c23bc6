"""How many files the process may have open: each connection is one, and so is what lies in the spool."""

from __future__ import annotations

import resource
from contextlib import suppress

import structlog

log = structlog.get_logger()

_WANTED = 65_536
_FEW = 1_024  # what systems allow a process at first


def raise_limit() -> int:
    """Allows as many as the system lets us, up to 65,536; says so where these are few.

    Returns:
        The number.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if most == resource.RLIM_INFINITY else min(most, _WANTED)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        with suppress(OSError, ValueError):  # macOS has limits beyond its limits
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            allowed = wanted
    if allowed != resource.RLIM_INFINITY and allowed < _FEW:
        log.warning("few files may be open: connections beyond that are closed", allowed=allowed, wanted=_FEW)
    return allowed
