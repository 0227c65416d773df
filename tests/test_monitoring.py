"""The alerts and the dashboard: every expression is PromQL, and of metrics and labels that the services have.

The parser checks types as promtool does. Each alert has its paragraph in the operations guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "deploy/kustomize/components/prometheus"
GUIDE = ROOT / "docs/operations.md"
SEVERITIES = {"critical", "warning", "info"}
MODULES = (
    "kubechain_common.kube.metrics",
    "kubechain_common.messaging.bus",
    "kubechain_common.messaging.consumer",
    "kubechain_common.runtime.backlog",
    "kubechain_human_bridge.answers.checks",
    "kubechain_human_bridge.audit",
    "kubechain_human_bridge.asking.request_worker",
    "kubechain_llm_gateway.calls.instrumentation",
    "kubechain_llm_gateway.admission.metrics",
    "kubechain_mcp_host.metrics",
    "kubechain_task_controller.metrics",
)
ADDED_BY_PROMETHEUS = {"job", "instance", "pod", "le"}


@dataclass(frozen=True)
class Query:
    """A metric and the labels that an expression asks it for."""

    metric: str
    labels: frozenset[str]


def find_queries(expression: Any, wanted: frozenset[str] = frozenset()) -> Iterator[Query]:
    """All in the expression; ``wanted`` are the labels by which it is summed up."""
    match expression:
        case promql.VectorSelector():
            own = {matcher.name for matcher in expression.matchers.matchers}
            yield Query(expression.name or "", wanted | own)
        case promql.MatrixSelector():
            yield from find_queries(expression.vector_selector, wanted)
        case promql.BinaryExpr():
            yield from find_queries(expression.lhs, wanted)
            yield from find_queries(expression.rhs, wanted)
        case promql.AggregateExpr():
            by = frozenset(expression.modifier.labels) if expression.modifier else frozenset()
            yield from find_queries(expression.expr, wanted | by)
        case promql.Call():
            for argument in expression.args:
                yield from find_queries(argument, wanted)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from find_queries(expression.expr, wanted)


def read_rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    assert document["kind"] == "PrometheusRule"
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def read_panels() -> list[dict[str, Any]]:
    document = json.loads((MONITORING / "dashboard.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def read_expressions() -> list[tuple[str, str]]:
    """(where it stands, PromQL), with Grafana's variables filled in as Grafana does."""
    alerts = [(rule["alert"], rule["expr"]) for rule in read_rules()]
    panels = [(panel["title"], target["expr"]) for panel in read_panels() for target in panel["targets"]]
    return [
        (where, expr.replace("$__rate_interval", "1m").replace("$namespace", ".*")) for where, expr in alerts + panels
    ]


def read_metrics() -> dict[str, frozenset[str]]:
    """The series that the services can show, and their labels."""
    for module in MODULES:
        import_module(module)
    collectors = REGISTRY._names_to_collectors
    return {name: frozenset(getattr(collector, "_labelnames", ())) for name, collector in collectors.items()}


@pytest.mark.parametrize(("where", "expression"), read_expressions(), ids=lambda value: str(value)[:40])
def test_an_expression_asks_for_what_there_is(where: str, expression: str) -> None:
    metrics = read_metrics()
    queries = list(find_queries(promql.parse(expression)))
    assert queries, f"{where} asks for nothing"
    for query in queries:
        assert query.metric in metrics, f"{where}: no service has {query.metric}"
        unknown = query.labels - metrics[query.metric] - ADDED_BY_PROMETHEUS
        assert not unknown, f"{where}: {query.metric} has no label {', '.join(sorted(unknown))}"


def test_a_metrics_own_labels_are_kept() -> None:
    """Else ``namespace`` would be the services' own, and what it says of Tasks and LLMs be hidden."""
    monitor = yaml.safe_load((MONITORING / "service-monitor.yaml").read_text())
    assert all(endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"])


def test_a_metric_that_is_not_there_would_be_noticed() -> None:
    (query, other) = find_queries(promql.parse('sum by (a) (rate(nothing_total{b="c"}[5m])) / up'))
    assert query == Query("nothing_total", frozenset({"a", "b"}))
    assert query.metric not in read_metrics()
    assert other.metric == "up"


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    guide = GUIDE.read_text()
    for rule in read_rules():
        name = rule["alert"]
        assert rule["labels"]["severity"] in SEVERITIES, name
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s")), name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert re.search(rf"^\| `{name}` \|", guide, re.MULTILINE), f"docs/operations.md says nothing of {name}"


def test_the_guide_speaks_of_no_alert_that_is_not_there() -> None:
    told = set(re.findall(r"^\| `(KubeChain\w+)` \|", GUIDE.read_text(), re.MULTILINE))
    assert told == {rule["alert"] for rule in read_rules()}


def test_panels_have_their_own_places() -> None:
    places = [panel["gridPos"] for panel in read_panels()]
    for number, one in enumerate(places):
        assert one["x"] + one["w"] <= 24
        for other in places[:number]:
            beside = one["x"] >= other["x"] + other["w"] or other["x"] >= one["x"] + one["w"]
            below = one["y"] >= other["y"] + other["h"] or other["y"] >= one["y"] + one["h"]
            assert beside or below
    assert len({panel["id"] for panel in read_panels()}) == len(places)
