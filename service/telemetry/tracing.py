"""OpenTelemetry: a span for each request and for its stages. Needs the extra `otel`; off, it costs nothing.

Where spans go and what the service is called is said in OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import Scope

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_SERVICE = "landmoe"
_LAST_SPANS_S = 2.0  # requests are answered by then, and whoever stops the process waits for it


class TracingError(RuntimeError):
    """Tracing was asked for and cannot be had; says why."""


class _Tracing:
    """The tracer, once there is one."""

    tracer: Any = None
    provider: Any = None


def configure(processor: SpanProcessor | None = None) -> None:
    """Turns tracing on for this process.

    Args:
        processor: of finished spans; sends them with OTLP over HTTP if None.

    Raises:
        TracingError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            "LANDMOE_TRACING is set and OpenTelemetry is not installed; expected the extra landmoe[otel]"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE)
    # Its own way to end waits for a collector that is away until it gives up.
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
    _Tracing.provider, _Tracing.tracer = provider, provider.get_tracer(_SERVICE)


def turn_off() -> None:
    """Makes no more spans, and sends those that are left if that is quick."""
    provider, _Tracing.provider, _Tracing.tracer = _Tracing.provider, None, None
    if provider is not None:
        rest = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        rest.start()
        rest.join(_LAST_SPANS_S)


@contextmanager
def request(scope: Scope, request_id: str) -> Iterator[None]:
    """The span of a request, a child of the caller's if it sent a `traceparent`. Its id goes into the log."""
    if _Tracing.tracer is None:
        yield
        return
    from opentelemetry import propagate, trace

    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with _Tracing.tracer.start_as_current_span(
        scope["method"],
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": scope["method"], "landmoe.request_id": request_id},
    ) as span:
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        structlog.contextvars.bind_contextvars(trace_id=trace_id)
        yield


def answered(route: str, status: int, outcome: str) -> None:
    """Says in the current span what the request came to."""
    if _Tracing.tracer is None:
        return
    from opentelemetry import trace

    span = trace.get_current_span()
    span.update_name(f"{getattr(span, 'name', '')} {route}")
    span.set_attributes(
        {"http.route": route, "http.response.status_code": status, "landmoe.outcome": outcome}
    )
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR, outcome)


def stage(name: str, seconds: float, ended_s_ago: float = 0) -> None:
    """A span, below the current one, of what has ended."""
    if _Tracing.tracer is None:
        return
    end = time.time_ns() - int(ended_s_ago * 1e9)
    _Tracing.tracer.start_span(name, start_time=end - int(seconds * 1e9)).end(end)
