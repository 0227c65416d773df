"""One trace per Task: every service's spans hang below the root span whose ids are in status.spanContext."""

from __future__ import annotations

import json

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.otlp import SpanSeen, SpanStore
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import SCRIPTS
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

EXPORT_SECONDS = 10.0
TURNS = 2


def test_the_spans_of_a_task_are_one_tree(workspace: Workspace, spans: SpanStore) -> None:
    if not workspace.cluster.traces:
        pytest.skip("a cluster that was started elsewhere (KUBECHAIN_TEST_STATE_DIR) exports its spans elsewhere")
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server(
            "tenant", "tenant_server.py", env=[manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        ),
    )
    workspace.apply_agent(workspace.serve_llm(SCRIPTS["tools"]), servers=["tenant"])
    order = {"turns": TURNS, "tool": "tenant__whoami"}
    context = workspace.run_task("traced", json.dumps(order))["status"]["spanContext"]

    def exported() -> list[SpanSeen]:
        seen = spans.of_trace(context["traceID"])
        names = [span.name for span in seen]
        assert names.count("invoke_agent my-assistant") == 1, names
        assert sum(name.startswith("chat ") for name in names) == TURNS + 1, names
        assert names.count("route tenant__whoami") == TURNS, names
        assert names.count("execute_tool whoami") == TURNS, names
        return seen

    seen = eventually(exported, EXPORT_SECONDS, what=f"all spans of trace {context['traceID']}")
    (root,) = [span for span in seen if not span.parent]
    assert (root.span, root.service) == (context["spanID"], "kubechain-task-controller")
    known = {span.span for span in seen}
    assert [span for span in seen if span.parent and span.parent not in known] == []
    services = {span.name.split()[0]: span.service for span in seen}
    assert services["chat"] == "kubechain-llm-gateway"
    assert services["route"] == "kubechain-toolcall-controller"
    assert services["execute_tool"] == "kubechain-mcp-host"
