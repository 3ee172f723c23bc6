"""Spans of requests and stages, where they are wanted; nothing where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.testclient import TestClient

from service.telemetry import tracing
from service.telemetry.tracing import TracingError
from tests.rasters import geotiff
from tests.service.server_process import ServerProcess

otel = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
TIFF = {"Content-Type": "image/tiff"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans() -> Iterator[object]:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = otel.InMemorySpanExporter()
    tracing.configure(SimpleSpanProcessor(exporter))
    yield exporter
    tracing.turn_off()


def test_a_request_and_its_stages(spans: otel.InMemorySpanExporter, client: TestClient) -> None:
    headers = TIFF | {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": "mine"}
    assert client.post("/embed", content=geotiff(), headers=headers).status_code == 200
    found = {span.name: span for span in spans.get_finished_spans()}
    request = found["POST /embed"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.attributes["landmoe.request_id"] == "mine"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["landmoe.outcome"] == "ok"
    assert {"decode", "cache", "queue", "inference", "format"} <= found.keys()
    for name in ("decode", "queue", "inference", "format"):
        assert found[name].parent.span_id == request.context.span_id
        assert request.start_time <= found[name].start_time + 5_000_000  # two clocks
        assert found[name].end_time <= request.end_time + 5_000_000


def test_what_went_wrong(spans: otel.InMemorySpanExporter, client: TestClient) -> None:
    client.post("/embed", content=b"no", headers=TIFF)
    client.get("/nothing/at/all")
    requests = [span for span in spans.get_finished_spans() if " " in span.name]
    names = {span.name: span.attributes["landmoe.outcome"] for span in requests}
    assert names == {"POST /embed": "not-a-tiff", "GET unmatched": "not-found"}


def test_off_it_makes_nothing(client: TestClient) -> None:
    exporter = otel.InMemorySpanExporter()
    client.post("/embed", content=geotiff(), headers=TIFF)
    assert exporter.get_finished_spans() == ()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingError, match=r"landmoe\[otel\]"):
        tracing.configure()


@pytest.mark.server
def test_a_collector_that_is_away_does_not_hold_up_the_end() -> None:
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    with ServerProcess(LANDMOE_TRACING="true", **collector) as server:
        answer = httpx.post(f"{server.url}/embed", content=geotiff(), headers=TIFF)
        assert answer.status_code == 200
        start = time.monotonic()
        assert server.stop() == 0
    assert time.monotonic() - start < 20  # it gives up after 60
