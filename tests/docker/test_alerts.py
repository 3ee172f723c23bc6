"""Alert rules: they fire when they should, and ask for what the service exposes."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.docker.conftest import Exposed, Promtool
from tests.docker.promql import complaints
from tests.integration.compose import ROOT

RULES = [
    rule
    for group in yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
CASES = yaml.safe_load((ROOT / "tests/docker/alerts_test.yml").read_text())["tests"]


def test_rules_fire_in_their_cases_and_in_no_other(promtool: Promtool) -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_for_firing_and_one_for_not() -> None:
    checks = [check for case in CASES for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == names
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == names


def test_prometheus_takes_the_configuration(promtool: Promtool) -> None:
    # The paths in it are those inside the container.
    done = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_gone_is_forgotten_before_it_alerts() -> None:
    """After its restart Prometheus has the last word of containers that have left meanwhile."""
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["command"]
    [back] = [_seconds(a.partition("=")[2]) for a in command if a.startswith("--query.lookback-delta=")]
    scraping = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())["global"]
    assert 4 * _seconds(scraping["scrape_interval"]) <= back  # or a scrape that is missed makes a gap
    for rule in RULES:
        if rule["alert"] in (
            "LandmoeDown",
            "LandmoeNotReady",
            "LandmoeRedisBypassed",
            "LandmoeQueueNearlyFull",
        ):
            assert back < _seconds(rule["for"])


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


@pytest.mark.server
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_rule_asks_for_what_the_service_exposes(rule: dict[str, str], exposed: Exposed) -> None:
    assert complaints(rule["expr"], exposed) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_the_operations_guide_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert anchor in {title.lower().replace(" ", "-") for title in titles}
    assert rule["labels"]["severity"] in {"warning", "critical"}
