"""What can go wrong with Redis, as the metrics name it."""

from __future__ import annotations

from redis import exceptions

KINDS = ("timeout", "connection", "busy", "auth", "loading", "out-of-memory", "read-only", "refused", "other")
REFUSES_WRITES = frozenset({"out-of-memory", "read-only", "refused"})


def kind_of(error: BaseException) -> str:
    """The kind of an error, one of `KINDS`."""
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return "auth"
    if isinstance(error, exceptions.NoPermissionError):
        return "auth"
    if isinstance(error, exceptions.BusyLoadingError):
        return "loading"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "out-of-memory"
    if isinstance(error, exceptions.ReadOnlyError):
        return "read-only"
    if isinstance(error, exceptions.ResponseError):  # MISCONF: Redis cannot save to its disk, for example
        return "refused"
    if isinstance(error, exceptions.ConnectionError) and isinstance(error.__cause__, TimeoutError):
        return "busy"  # the pool's way to say that all connections are in use
    if isinstance(error, exceptions.ConnectionError | OSError):
        return "connection"
    return "other"
