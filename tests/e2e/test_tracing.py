"""One trace per Task: every service's spans hang below the root span whose ids are in status.spanContext."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.otlp import SpanSeen, SpanStore
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import SCRIPTS
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

EXPORT_SECONDS = 10.0
TURNS = 2


def apply_tenant_agent(workspace: Workspace) -> None:
    """Agent ``my-assistant`` with the tools of MCPServer ``tenant``."""
    if not workspace.cluster.traces:
        pytest.skip("a cluster that was started elsewhere (KUBECHAIN_TEST_STATE_DIR) exports its spans elsewhere")
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server(
            "tenant", "tenant_server.py", env=[manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        ),
    )
    workspace.apply_agent(workspace.serve_llm(SCRIPTS["tools"]), servers=["tenant"])


def test_the_spans_of_a_task_are_one_tree(workspace: Workspace, spans: SpanStore) -> None:
    apply_tenant_agent(workspace)
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
    check_attributes(seen)


def check_attributes(seen: list[SpanSeen]) -> None:
    """By OpenTelemetry's GenAI conventions, without a word of the conversation."""
    by_operation = {span.attributes.get("gen_ai.operation.name"): span for span in seen}
    chat, tool, agent = (by_operation[name] for name in ("chat", "execute_tool", "invoke_agent"))
    assert chat.name == "chat gpt-4o"
    assert (chat.kind, tool.kind, agent.kind) == ("client", "client", "internal")
    said = chat.attributes
    assert (said["gen_ai.provider.name"], said["server.address"]) == ("openai", "127.0.0.1")
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "gpt-4o"
    assert said["gen_ai.response.id"].startswith("chatcmpl-")
    assert said["gen_ai.response.finish_reasons"] in (["tool_calls"], ["stop"])
    assert said["gen_ai.usage.input_tokens"] > 0
    assert said["gen_ai.usage.output_tokens"] > 0
    assert tool.attributes["gen_ai.tool.name"] == "whoami"
    assert agent.attributes["gen_ai.agent.name"] == "my-assistant"
    chats = [span.attributes for span in seen if span.attributes.get("gen_ai.operation.name") == "chat"]
    for count in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
        assert agent.attributes[count] == sum(attributes[count] for attributes in chats)
    for words in ("gen_ai.input.messages", "gen_ai.output.messages", f"done after {TURNS} turns"):
        assert not any(words in span.text for span in seen)


def test_a_trace_goes_on_through_restarts(workspace: Workspace, spans: SpanStore) -> None:
    """What a killed process had not exported is lost; what the others export afterwards is still the same tree."""
    apply_tenant_agent(workspace)
    order = {"turns": 3, "tool": "tenant__whoami", "delay_ms": 2000}
    workspace.kubectl.apply(manifests.task("restarted", json.dumps(order)))
    workspace.kubectl.wait("task/restarted", "jsonpath={.status.turn}=2")
    for service in ("llm-gateway", "task-controller"):
        workspace.kill(service)
    context = workspace.kubectl.finish("restarted", timeout=60)["status"]["spanContext"]

    def exported() -> list[SpanSeen]:
        seen = spans.of_trace(context["traceID"])
        roots = [span.span for span in seen if not span.parent]
        assert roots == [context["spanID"]]
        assert sum(span.name == "execute_tool whoami" for span in seen) == 3
        chats = [span for span in seen if span.attributes.get("gen_ai.operation.name") == "chat"]
        assert len(chats) >= 2
        assert {span.parent for span in chats} == {context["spanID"]}
        return seen

    seen = eventually(exported, EXPORT_SECONDS, what=f"the spans of trace {context['traceID']} after the restarts")
    known = {span.span for span in seen}
    assert [span for span in seen if span.parent and span.parent not in known] == []


def test_metrics_have_the_names_of_the_conventions(workspace: Workspace) -> None:
    workspace.apply_agent(workspace.serve_llm(SCRIPTS["tools"]))
    workspace.run_task("measured", json.dumps({"turns": 0}))
    port = workspace.cluster.process("llm-gateway")["port"]
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for name in (
        "gen_ai_client_operation_duration_seconds_bucket",
        "gen_ai_client_operation_time_to_first_chunk_seconds_bucket",
        "gen_ai_client_token_usage_bucket",
    ):
        assert any(line.startswith(name) and 'gen_ai_request_model="gpt-4o"' in line for line in text.splitlines()), (
            name
        )
