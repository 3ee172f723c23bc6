"""What a PromQL expression asks for, and whether the service has it."""

from __future__ import annotations

from typing import NamedTuple

import promql_parser

from service.errors import PROBLEMS
from service.telemetry.metrics import FETCHED

OUTCOMES = {"ok", "disconnected", "error", *PROBLEMS}
_OUTCOMES_OF = {"landmoe_fetches_total": set(FETCHED)}  # of others than requests and tiles
# From the scrape, not from the service.
_TARGET_LABELS = {"job", "instance"}
_ELSEWHERE = ("haproxy_", "up", "ALERTS")


class Selector(NamedTuple):
    """A metric's name, and its label matchers as (label, value)."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Every selector of an expression.

    Raises:
        ValueError: not PromQL.
    """
    found: list[Selector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(Selector(node.name or "", tuple((m.name, m.value) for m in node.matchers.matchers)))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def labels_used(expression: str) -> set[str]:
    """Labels that an expression groups by."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def complaints(expression: str, exposed: dict[str, set[str]]) -> list[str]:
    """What an expression asks for that a service does not expose: metrics, labels, outcomes."""
    found = []
    labels: set[str] = set(_TARGET_LABELS)
    for selector in selectors(expression):
        if selector.metric.startswith(_ELSEWHERE):
            continue
        if selector.metric not in exposed:
            found.append(f"{selector.metric} is not exposed")
            continue
        labels |= exposed[selector.metric]
        for label, value in selector.matchers:
            if label not in exposed[selector.metric] | _TARGET_LABELS:
                found.append(f"{selector.metric} has no label {label}")
            if label == "outcome":
                known = _OUTCOMES_OF.get(selector.metric, OUTCOMES)
                found += [f"no outcome {name}" for name in value.split("|") if name not in known]
    if any(not s.metric.startswith(_ELSEWHERE) for s in selectors(expression)):
        found += [f"grouped by {label}, which nothing has" for label in labels_used(expression) - labels]
    return found
