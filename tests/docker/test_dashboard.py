"""The Grafana dashboard: every query parses and asks for what the service exposes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.docker.conftest import Exposed
from tests.docker.promql import complaints, selectors
from tests.integration.compose import ROOT

GRAFANA = ROOT / "docker/grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards/landmoe.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
WANTED = {
    "traffic": "landmoe_requests_total",
    "latency": "landmoe_request_duration_seconds_bucket",
    "stages": "landmoe_stage_duration_seconds_bucket",
    "batch size": "landmoe_batch_size_tiles_sum",
    "queue": "landmoe_queue_depth_tiles",
    "cache": "landmoe_cache_lookups_total",
    "routing share": "landmoe_routed_tokens_total",
    "memory": "landmoe_worker_resident_memory_bytes",
}


def expression(query: str) -> str:
    """A query as Grafana sends it: its variables are replaced."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "1m")


@pytest.mark.server
@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_asks_for_what_the_service_exposes(title: str, query: str, exposed: Exposed) -> None:
    assert complaints(expression(query), exposed) == [], title


def test_a_query_that_is_none_or_asks_for_nothing_is_noticed(exposed: Exposed) -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        complaints("sum(rate(landmoe_requests_total[1m])", exposed)
    assert complaints("landmoe_nothing_total", exposed)
    assert complaints('landmoe_requests_total{path="/embed"}', exposed)
    assert complaints('landmoe_requests_total{outcome="gone"}', exposed)
    assert complaints("sum by (path) (landmoe_requests_total)", exposed)


@pytest.mark.parametrize("metric", WANTED.values(), ids=list(WANTED))
def test_the_dashboard_shows_what_an_operator_looks_for(metric: str) -> None:
    assert metric in {s.metric for _, query in QUERIES for s in selectors(expression(query))}


def test_panels_do_not_overlap_and_fill_no_more_than_the_width() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, (panel["title"], taken.get(cell))
            taken[cell] = panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_queries_use_the_provisioned_data_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]

    def uids(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["datasource"]["uid"]} if "datasource" in node else set()
            return own.union(*(uids(value) for value in node.values()))
        return set().union(*(uids(value) for value in node)) if isinstance(node, list) else set()

    assert uids(DASHBOARD) == {source["uid"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in compose  # type: ignore[index]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/landmoe.yml").read_text())["providers"]
    mounts = dict(v.split(":")[:2] for v in compose["grafana"]["volumes"])
    assert mounts["./docker/grafana/dashboards"] == provider["options"]["path"]
