"""Logging: one line for each event, for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import IO, Any

import orjson
import structlog

from service.settings import LogFormat, LogLevel


def configure(level: LogLevel = "info", log_format: LogFormat = "auto") -> None:
    """Sends structlog's events and the standard library's (uvicorn's) to standard error, in one form."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: with local variables they would put users' data into the log, and take seconds.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    trace = structlog.processors.format_exc_info
    # Our own events go straight to the file: the standard library's way costs a tenth of a cached request.
    ours: list[structlog.typing.Processor] = (
        [trace, structlog.processors.JSONRenderer(_dumps_bytes)] if as_json else [_printable, console]
    )
    theirs: list[structlog.typing.Processor] = (
        [trace, structlog.processors.JSONRenderer(_dumps)] if as_json else [_printable, console]
    )
    structlog.configure(
        processors=[*shared, *ours],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(sys.stderr.buffer if as_json else sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _drop_color],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *theirs],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # every damaged upload would be a line


def _dumps(event: Any, **_: Any) -> str:
    return _dumps_bytes(event).decode()


def _dumps_bytes(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # text that is not Unicode
        return orjson.dumps({name: repr(value) for name, value in event.items()})


class _Lines:
    """What structlog writes to. No request fails because its line in the log cannot be written."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def msg(self, line: str | bytes) -> None:
        """Writes a line."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(line + b"\n" if isinstance(line, bytes) else line + "\n")
            self._file.flush()

    debug = info = warning = error = critical = exception = msg


def _printable(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A path that someone asks for must not move the cursor or paint the terminal of who looks on."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "event":
            event[name] = repr(value)[1:-1]
    return event


def _drop_color(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)
    return event
