"""Which errors of a service are worth another attempt, when, and where retries are told."""

from __future__ import annotations

import random

import stamina
import structlog

from service.clients.errors import RETRIED, ProblemError

_WAIT_MAX_S = 60.0  # between two attempts, whatever the service asks


def log_retries_aside() -> None:
    """Where nobody has configured structlog it prints on standard output, which is the caller's."""
    if structlog.is_configured():
        return
    hooks = stamina.instrumentation.get_on_retry_hooks()
    printing = "stamina.instrumentation._structlog"
    if any(hook.__module__ == printing for hook in hooks):
        others = [hook for hook in hooks if hook.__module__ != printing]
        stamina.instrumentation.set_on_retry_hooks([*others, stamina.instrumentation.LoggingOnRetryHook])


def wait_s(error: Exception) -> bool | float:
    """Whether a request is tried again; the seconds until then where the service says them."""
    if not isinstance(error, RETRIED):
        return False
    if isinstance(error, ProblemError) and error.retry_after_s is not None:
        # Not all clients at once: up to a quarter later than asked, and up to a second where it asks for 0.
        wait = min(error.retry_after_s, _WAIT_MAX_S)
        return wait + random.uniform(0, max(1.0, wait / 4))  # noqa: S311  # not a secret
    return True
