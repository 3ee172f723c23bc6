"""Blocking work in a thread, of which a caller that is cancelled awaits the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns or raises that runs in a worker thread.

    To cancel a task ends its wait, not the thread. But who is cancelled, since the client has gone, closes
    the files that the thread writes; Arrow's writer ends the process then. So the wait goes on until the
    thread is done, and ends as cancelled.
    """
    work = asyncio.ensure_future(run_in_threadpool(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # nobody is left whom it concerns
        raise cancelled
    return work.result()
