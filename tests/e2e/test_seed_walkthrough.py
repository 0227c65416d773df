"""The tutorial from its first command to its last, in namespace default: its YAML, its commands, its words.

The tests are its steps: each goes on where the one before it stopped. A difference is shown beside what the tutorial
prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from tests.e2e.support import tutorial
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.failures import TOLD_SECONDS
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.stdio_client import list_tools
from tests.e2e.support.tables import (
    assert_events,
    assert_lines_in_order,
    read_columns,
    read_events,
    read_rows,
)

from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer, fingerprint
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

OPENAI_KEY = "sk-tutorial-openai-5f0a1c"
ANTHROPIC_KEY = "sk-ant-tutorial-77b2e9"
SYSTEM = "You are a helpful assistant. Your job is to help the user with their tasks.\n"
MOON = "What is the capital of the moon?"


@dataclass
class Walk:
    """What the steps share."""

    kubectl: Kubectl
    llm: ScriptedServer
    page: str
    cluster: Cluster

    def status_of(self, kind: str, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.kubectl.get(kind, name)["status"]
        return status

    def expect_events(self, kind: str, name: str, *expected: tuple[str, str, str, str]) -> str:
        """`kubectl describe` once it shows the events (type, reason, source, message); they are written after."""

        def described() -> str:
            text = self.kubectl("describe", kind, name)
            assert_events(read_events(text), expected)
            return text

        return eventually(described, TOLD_SECONDS, what=f"events of {kind} {name}")

    def asked(self, path: str, since: int = 0) -> list[dict[str, Any]]:
        """The bodies of the requests that the stand-in got."""
        return [request.body for request in list(self.llm.requests)[since:] if request.path == path]


@pytest.fixture(scope="module")
def walk(cluster: Cluster, servers: BackgroundLoop, page_url: str) -> Iterator[Walk]:
    cluster.secrets |= {OPENAI_KEY, ANTHROPIC_KEY}
    kubectl = Kubectl(cluster.kubeconfig, "default")
    clean_up(kubectl)
    yield Walk(kubectl, servers.enter(ScriptedServer(SCRIPTS["tutorial"])), page_url, cluster)
    clean_up(kubectl)


def clean_up(kubectl: Kubectl) -> None:
    for kind in ("taskruntoolcall", "task", "agent", "mcpserver", "llm"):
        kubectl("delete", kind, "--all")
    kubectl("delete", "secret", "openai", "anthropic", "--ignore-not-found")
    kubectl.delete_events()  # those of an earlier walk, on a cluster that is used again


# --- LLM -------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("llm-secret", "llm-manifest", "llm-columns", "llm-ready")
def test_define_an_llm(walk: Walk) -> None:
    walk.kubectl(
        "create",
        "secret",
        "generic",
        "openai",
        f"--from-literal=OPENAI_API_KEY={OPENAI_KEY}",
        "--namespace=default",
    )
    walk.kubectl.apply(tutorial.LLM.format(base_url=walk.llm.url))
    walk.kubectl.wait("llm/gpt-4o")
    table = walk.kubectl("get", "llm")
    assert read_columns(table) == ["NAME", "PROVIDER", "READY", "STATUS"]
    assert read_rows(table) == [{"NAME": "gpt-4o", "PROVIDER": "openai", "READY": "true", "STATUS": "Ready"}]


@pytest.mark.requirement("llm-columns-wide", "llm-ready-detail")
def test_the_llm_in_wide(walk: Walk) -> None:
    table = walk.kubectl("get", "llm", "-o", "wide")
    assert read_columns(table) == ["NAME", "PROVIDER", "READY", "STATUS", "DETAIL"]
    assert read_rows(table)[0]["DETAIL"] == "OpenAI API key validated successfully"


@pytest.mark.requirement("llm-describe", "llm-event-validated")
def test_the_llm_described(walk: Walk) -> None:
    described = walk.expect_events(
        "llm",
        "gpt-4o",
        ("Normal", "ValidationSucceeded", "llm-controller", "OpenAI API key validated successfully"),
    )
    assert_lines_in_order(described, tutorial.LLM_DESCRIBED)


# --- Agent -----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("agent-manifest", "agent-columns", "agent-ready")
def test_create_an_agent(walk: Walk) -> None:
    walk.kubectl.apply(tutorial.AGENT)
    walk.kubectl.wait("agent/my-assistant")
    table = walk.kubectl("get", "agent")
    assert read_columns(table) == ["NAME", "READY", "STATUS"]
    assert read_rows(table) == [{"NAME": "my-assistant", "READY": "true", "STATUS": "Ready"}]


@pytest.mark.requirement("agent-columns-wide", "agent-ready-detail")
def test_the_agent_in_wide(walk: Walk) -> None:
    table = walk.kubectl("get", "agent", "-o", "wide")
    assert read_columns(table) == ["NAME", "READY", "STATUS", "DETAIL"]
    assert read_rows(table)[0]["DETAIL"] == "All dependencies validated successfully"


@pytest.mark.requirement("agent-describe", "agent-event-initializing", "agent-event-validated")
def test_the_agent_described(walk: Walk) -> None:
    described = walk.expect_events(
        "agent",
        "my-assistant",
        ("Normal", "Initializing", "agent-controller", "Starting validation"),
        ("Normal", "ValidationSucceeded", "agent-controller", "All dependencies validated successfully"),
    )
    assert_lines_in_order(described, tutorial.AGENT_DESCRIBED)


# --- Task ------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("task-manifest", "task-columns", "task-final-answer", "task-preview", "task-output")
def test_create_a_task(walk: Walk) -> None:
    walk.kubectl.apply(tutorial.HELLO_TASK)
    walk.kubectl.wait("task/hello-world-1", "condition=Complete")
    table = walk.kubectl("get", "task")
    assert read_columns(table) == ["NAME", "READY", "STATUS", "PHASE", "PREVIEW", "OUTPUT"]
    (row,) = read_rows(table)
    output = row.pop("OUTPUT")
    assert row == {
        "NAME": "hello-world-1",
        "READY": "true",
        "STATUS": "Ready",
        "PHASE": "FinalAnswer",
        "PREVIEW": MOON,
    }
    assert "The Moon does not have a capital. It is a natural satellite of Earth" in output


@pytest.mark.requirement(
    "task-describe-window",
    "task-final-detail",
    "task-event-validated",
    "task-event-sending",
    "task-event-final-answer",
)
def test_the_task_described(walk: Walk) -> None:
    described = walk.expect_events(
        "task",
        "hello-world-1",
        ("Normal", "ValidationSucceeded", "task-controller", "Task validation succeeded"),
        ("Normal", "SendingContextWindowToLLM", "task-controller", "Sending context window to LLM"),
        ("Normal", "LLMFinalAnswer", "task-controller", "LLM response received successfully"),
    )
    assert_lines_in_order(described, tutorial.HELLO_DESCRIBED)


@pytest.mark.requirement("task-output-jsonpath")
def test_the_output_alone(walk: Walk) -> None:
    output = walk.kubectl("get", "task", "-o", "jsonpath={.items[*].status.output}")
    assert output == walk.status_of("task", "hello-world-1")["output"]
    assert output.endswith("human habitation that would necessitate a capital city.")


@pytest.mark.requirement(
    "concept-task",
    "task-yaml-list",
    "task-yaml-window",
    "task-yaml-outcome",
    "task-span-context",
    "task-window-system",
    "task-window-user",
    "task-window-assistant",
)
def test_the_task_as_yaml(walk: Walk) -> None:
    shown = yaml.safe_load(walk.kubectl("get", "task", "-o", "yaml"))
    assert (shown["apiVersion"], shown["kind"], shown["metadata"]) == ("v1", "List", {"resourceVersion": ""})
    (task,) = shown["items"]
    assert task["spec"] == {"agentRef": {"name": "my-assistant"}, "userMessage": MOON}
    status = task["status"]
    said = [{key: message[key] for key in ("content", "role")} for message in status["contextWindow"]]
    assert said == [
        {"content": SYSTEM, "role": "system"},
        {"content": MOON, "role": "user"},
        {"content": status["output"], "role": "assistant"},
    ]
    assert {key: status[key] for key in ("phase", "ready", "status", "statusDetail")} == {
        "phase": "FinalAnswer",
        "ready": True,
        "status": "Ready",
        "statusDetail": "LLM final response received",
    }
    assert re.fullmatch(r"[0-9a-f]{16}", status["spanContext"]["spanID"])
    assert re.fullmatch(r"[0-9a-f]{32}", status["spanContext"]["traceID"])


@pytest.mark.requirement("concept-llm")
def test_the_provider_got_the_key_and_the_parameters(walk: Walk) -> None:
    (request,) = [r for r in walk.llm.requests if r.path == "/v1/chat/completions"]
    assert request.key_fingerprint == fingerprint(OPENAI_KEY)
    assert request.body["model"] == "gpt-4o"
    assert request.body["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": MOON}]
    assert not request.body.get("tools")


# --- MCPServer -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("mcpserver-manifest", "mcpserver-columns", "mcpserver-ready")
def test_add_an_mcp_server(walk: Walk) -> None:
    walk.kubectl.apply(tutorial.FETCH_SERVER)
    walk.kubectl.wait("mcpserver/fetch", timeout=90)  # uvx installs the server first
    table = walk.kubectl("get", "mcpserver")
    assert read_columns(table) == ["NAME", "READY", "STATUS"]
    assert read_rows(table) == [{"NAME": "fetch", "READY": "true", "STATUS": "Ready"}]


@pytest.mark.requirement(
    "mcpserver-connected", "mcpserver-detail", "mcpserver-tool-required", "mcpserver-event-connected"
)
def test_the_mcp_server_described(walk: Walk) -> None:
    described = walk.expect_events(
        "mcpserver", "fetch", ("Normal", "Connected", "mcpserver-controller", "MCP server connected successfully")
    )
    assert_lines_in_order(described, tutorial.FETCH_SERVER_DESCRIBED)


@pytest.mark.requirement("mcpserver-tool-description", "mcpserver-tool-schema")
def test_the_tool_is_kept_as_the_server_tells_it(walk: Walk) -> None:
    (told,) = list_tools(["uvx", "mcp-server-fetch"], walk.cluster.env)
    (kept,) = walk.status_of("mcpserver", "fetch")["tools"]
    assert kept["name"] == told["name"] == "fetch"
    assert kept["description"] == told["description"]
    assert kept["inputSchema"] == told["inputSchema"]
    assert {"default", "description", "title", "type"} <= kept["inputSchema"]["properties"]["max_length"].keys()


# --- an agent with a tool --------------------------------------------------------------------------------------------


@pytest.mark.requirement("agent-update-in-place")
def test_update_the_agent_in_place(walk: Walk) -> None:
    before = walk.kubectl.get("agent", "my-assistant")
    walk.kubectl.apply(tutorial.FETCH_SERVER_FOR_LOCAL_PAGE)

    def restarted() -> bool:
        server = walk.kubectl.get("mcpserver", "fetch")
        return bool(server["status"]["connected"] and server["status"]["observedGeneration"] == 2)

    eventually(restarted, 60, what="fetch connected again with its new arguments")
    assert walk.kubectl.apply(tutorial.AGENT_WITH_FETCH).endswith("configured\n")

    def updated() -> dict[str, Any]:
        agent = walk.kubectl.get("agent", "my-assistant")
        assert agent["status"]["observedGeneration"] == 2
        return agent

    after = eventually(updated, TOLD_SECONDS, what="the agent's second generation validated")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["ready"] is True
    assert after["status"]["validMCPServers"] == [{"name": "fetch", "tools": ["fetch"]}]


@pytest.mark.requirement("fetch-task-manifest", "fetch-task-output", "concept-orchestrator")
def test_a_task_that_needs_the_tool(walk: Walk) -> None:
    walk.kubectl.apply(tutorial.FETCH_TASK.format(url=walk.page))
    walk.kubectl.wait("task/fetch-task", "condition=Complete", timeout=30)
    output = walk.kubectl("get", "task", "fetch-task", "-o", "jsonpath={.status.output}")
    assert f"The URL {walk.page} contains the following data about a Star Wars character:" in output
    for fact in ("**Name**: Luke Skywalker", "**Height**: 172", "**Birth Year**: 19BBY", "**Species**: None listed"):
        assert fact in output


@pytest.mark.requirement(
    "events-watch",
    "task-events-command",
    "task-event-tool-calls-pending",
    "task-event-tool-call-created",
    "task-event-tools-completed",
    "tool-call-name",
)
def test_the_events_of_the_task(walk: Walk) -> None:
    expected = {
        ("Normal", "ValidationSucceeded", "task/fetch-task", "Task validation succeeded"),
        ("Normal", "ToolCallsPending", "task/fetch-task", "LLM response received, tool calls pending"),
        ("Normal", "SendingContextWindowToLLM", "task/fetch-task", "Sending context window to LLM"),
        ("Normal", "LLMFinalAnswer", "task/fetch-task", "LLM response received successfully"),
    }

    def listed() -> list[dict[str, str]]:
        rows = read_rows(
            walk.kubectl("get", "events", "--field-selector", "involvedObject.kind=Task", "--sort-by=.lastTimestamp")
        )
        mine = [row for row in rows if row["OBJECT"] == "task/fetch-task"]
        assert expected <= {(row["TYPE"], row["REASON"], row["OBJECT"], row["MESSAGE"]) for row in mine}, rows
        assert {"ToolCallCreated", "AllToolCallsCompleted"} <= {row["REASON"] for row in mine}, rows
        return mine

    rows = eventually(listed, TOLD_SECONDS, what="the events of fetch-task")
    (created,) = [row["MESSAGE"] for row in rows if row["REASON"] == "ToolCallCreated"]
    assert re.fullmatch(r"Created TaskRunToolCall fetch-task-[0-9a-f]{7}-tc-01", created)
    (completed,) = [row["MESSAGE"] for row in rows if row["REASON"] == "AllToolCallsCompleted"]
    assert completed.startswith("All tool calls completed")


@pytest.mark.requirement(
    "task-describe-events",
    "task-event-sending-again",
    "task-window-order",
    "tool-name",
    "task-window-tool-call",
    "task-window-tool-call-id",
    "task-window-tool-result",
)
def test_the_task_with_its_tool_call_described(walk: Walk) -> None:
    described = walk.expect_events(
        "task",
        "fetch-task",
        ("Normal", "ToolCallsPending", "task-controller", "LLM response received, tool calls pending"),
        (
            "Normal",
            "AllToolCallsCompleted",
            "task-controller",
            "All tool calls completed, ready to send tool results to LLM",
        ),
        ("Normal", "LLMFinalAnswer", "task-controller", "LLM response received successfully"),
    )
    assert_lines_in_order(described, tutorial.FETCH_TASK_DESCRIBED.format(url=walk.page))

    def sent_twice() -> bool:
        events = read_events(walk.kubectl("describe", "task", "fetch-task"))
        return [event.count for event in events if event.reason == "SendingContextWindowToLLM"] == [2]

    eventually(sent_twice, TOLD_SECONDS, what="SendingContextWindowToLLM (x2 over ...)")
    window = walk.status_of("task", "fetch-task")["contextWindow"]
    assert [message["role"] for message in window] == ["system", "user", "assistant", "tool", "assistant"]
    (call,) = window[2]["toolCalls"]
    assert not window[2].get("content")
    assert call["type"] == "function"
    assert window[3]["toolCallId"] == call["id"]
    assert '"birth_year": "19BBY"' in window[3]["content"] or '"birth_year":"19BBY"' in window[3]["content"]


@pytest.mark.requirement("concept-tool-call", "tool-call-events")
def test_the_tool_call(walk: Walk) -> None:
    (call,) = walk.kubectl.list("taskruntoolcall")
    name = call["metadata"]["name"]
    assert re.fullmatch(r"fetch-task-[0-9a-f]{7}-tc-01", name)
    table = walk.kubectl("get", "taskruntoolcall")
    assert read_columns(table) == ["NAME", "PHASE", "TASKRUN", "TOOL"]
    assert read_rows(table) == [{"NAME": name, "PHASE": "Succeeded", "TASKRUN": "fetch-task", "TOOL": "fetch__fetch"}]
    owner = walk.kubectl.get("task", "fetch-task")["metadata"]["uid"]
    tool = "fetch__fetch"
    described = walk.expect_events(
        "taskruntoolcall",
        name,
        (
            "Normal",
            "ExecutionSucceeded",
            "taskruntoolcall-controller",
            f'MCP tool "{tool}" executed successfully',
        ),
    )
    assert_lines_in_order(described, tutorial.CALL_DESCRIBED.format(name=name, owner=owner, url=walk.page))
    assert "Luke Skywalker" in call["status"]["result"]


@pytest.mark.requirement("tool-result-to-llm", "concept-agent", "concept-tools")
def test_what_the_provider_was_asked(walk: Walk) -> None:
    first, second = walk.asked("/v1/chat/completions")[-2:]
    assert first["messages"][0] == {"role": "system", "content": SYSTEM}
    (tool,) = first["tools"]
    assert tool["function"]["name"] == "fetch__fetch"
    (kept,) = walk.status_of("mcpserver", "fetch")["tools"]
    assert tool["function"]["parameters"] == kept["inputSchema"]
    window = walk.status_of("task", "fetch-task")["contextWindow"]
    asked, answered = second["messages"][-2:]
    assert [c["id"] for c in asked["tool_calls"]] == [window[2]["toolCalls"][0]["id"]]
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == {"url": walk.page}
    assert answered["tool_call_id"] == window[3]["toolCallId"]
    assert answered["content"] == window[3]["content"]


# --- another provider ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("anthropic-manifest", "anthropic-ready")
def test_an_llm_of_anthropic(walk: Walk) -> None:
    walk.kubectl("create", "secret", "generic", "anthropic", f"--from-literal=ANTHROPIC_API_KEY={ANTHROPIC_KEY}")
    walk.kubectl.apply(tutorial.CLAUDE_LLM.format(base_url=walk.llm.anthropic_url))
    walk.kubectl.wait("llm/claude-3-5-sonnet")
    table = walk.kubectl("get", "llm", "claude-3-5-sonnet")
    assert read_columns(table) == ["NAME", "PROVIDER", "READY", "STATUS"]
    assert read_rows(table) == [
        {"NAME": "claude-3-5-sonnet", "PROVIDER": "anthropic", "READY": "true", "STATUS": "Ready"}
    ]


@pytest.mark.requirement("anthropic-agent", "anthropic-task", "providers-side-by-side")
def test_a_task_of_anthropic(walk: Walk) -> None:
    walk.kubectl.apply(tutorial.CLAUDE_AGENT)
    walk.kubectl.apply(tutorial.CLAUDE_TASK)
    walk.kubectl.apply(tutorial.HELLO_TASK.replace("hello-world-1", "hello-world-2"))
    walk.kubectl.wait("task/claude-task", "condition=Complete")
    walk.kubectl.wait("task/hello-world-2", "condition=Complete")
    assert walk.status_of("agent", "claude")["ready"] is True
    (row,) = read_rows(walk.kubectl("get", "task", "claude-task"))
    output = row.pop("OUTPUT")
    assert row == {
        "NAME": "claude-task",
        "READY": "true",
        "STATUS": "Ready",
        "PHASE": "FinalAnswer",
        "PREVIEW": "What is your name and primary directive?",
    }
    assert "I have no name and no directive" in output
    (request,) = [r for r in walk.llm.requests if r.path == "/v1/messages"]
    assert request.key_fingerprint == fingerprint(ANTHROPIC_KEY)
    assert request.body["model"] == "claude-3-5-sonnet-latest"


# --- and what comes after --------------------------------------------------------------------------------------------


@pytest.mark.requirement("event-aggregation")
def test_the_same_event_again_raises_its_count(walk: Walk) -> None:
    # A new key is validated like the first one; both answers are the same words.
    walk.cluster.secrets.add(f"{OPENAI_KEY}-rotated")
    walk.kubectl(
        "patch", "secret", "openai", "-p", json.dumps({"stringData": {"OPENAI_API_KEY": f"{OPENAI_KEY}-rotated"}})
    )

    def counted() -> bool:
        events = read_events(walk.kubectl("describe", "llm", "gpt-4o"))
        validated = [event.count for event in events if event.reason == "ValidationSucceeded"]
        return len(validated) == 1 and validated[0] >= 2

    eventually(counted, TOLD_SECONDS, what="ValidationSucceeded (x2 over ...) once the key changed")


def test_remove_everything(walk: Walk) -> None:
    clean_up(walk.kubectl)
    assert walk.kubectl("get", "taskruntoolcall,task,agent,mcpserver,llm", "-o", "name") == ""
