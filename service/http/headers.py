"""A request's header, read where it lies: starlette's mapping costs several times as much for each look."""

from __future__ import annotations

from starlette.requests import Request


def header(request: Request, name: bytes) -> str | None:
    """The first value of a header; None if it did not come.

    Args:
        request: as ASGI has it: names of headers in lower case.
        name: in lower case.
    """
    for given, value in request.scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


def listed(request: Request, name: bytes) -> str | None:
    """All values of a header that is a list, one after another (RFC 9110, 5.3); None if it did not come."""
    found = [str(value, "latin-1") for given, value in request.scope["headers"] if given == name]
    return ", ".join(found) if found else None
