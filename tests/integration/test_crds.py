"""The CRDs on a real API server: what it takes, what it refuses and in which words, and what may change later.

Every refusal has to be a sentence that names the field, because it is all that the person at kubectl sees.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

pytestmark = pytest.mark.integration

Manifest = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"crds-{uuid4().hex[:8]}"
    created = kubectl("create", "namespace", name)
    assert created.returncode == 0, created.stderr
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def manifest(kind: str, spec: Any, name: str = "probe") -> Manifest:
    return {"apiVersion": "kubechain.humanlayer.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


OPENAI_KEY = {"secretKeyRef": {"name": "openai", "key": "OPENAI_API_KEY"}}
ANTHROPIC_KEY = {"secretKeyRef": {"name": "anthropic", "key": "ANTHROPIC_API_KEY"}}
HUMANLAYER_KEY = {"secretKeyRef": {"name": "humanlayer", "key": "HUMANLAYER_API_KEY"}}
SYSTEM = "You are a helpful assistant. Your job is to help the user with their tasks.\n"
FETCH = {"transport": "stdio", "command": "uvx", "args": ["mcp-server-fetch"]}
ASK = {"agentRef": {"name": "my-assistant"}, "userMessage": "What is the capital of the moon?"}
USER = {"role": "user", "content": "hi"}
EMAIL = {
    "address": "approver@example.com",
    "subject": "Approval Request from Kubechain",
    "contextAboutUser": "Primary approver for web fetch operations",
}
CALL = {
    "toolCallId": "call_1",
    "taskRunRef": {"name": "fetch-task"},
    "toolRef": {"name": "fetch__fetch"},
    "arguments": '{"url":"https://swapi.dev/api/people/1"}',
}

FOREIGN = {"name": "kube-root-ca.crt", "key": "ca.crt"}
FOREIGN_IMAGE = {"mimeType": "image/png", "configMapKeyRef": FOREIGN}
POINTING_CALL = {"id": "1", "function": {"name": "f", "argumentsFrom": {"taskRunToolCallRef": {"name": "x"}}}}

GOOD: dict[str, Manifest] = {
    "gpt-4o": manifest("LLM", {"provider": "openai", "parameters": {"model": "gpt-4o"}, "apiKeyFrom": OPENAI_KEY}),
    "claude-3-5-sonnet": manifest(
        "LLM",
        {
            "provider": "anthropic",
            "parameters": {"model": "claude-3-5-sonnet-latest"},
            "apiKeyFrom": ANTHROPIC_KEY,
        },
    ),
    "keyless-llm-with-a-base-url": manifest(
        "LLM", {"provider": "openai", "parameters": {"baseUrl": "http://localhost:11434/v1"}}
    ),
    "llm-with-every-parameter": manifest(
        "LLM",
        {
            "provider": "openai",
            "apiKeyFrom": OPENAI_KEY,
            "openai": {"organization": "org", "apiType": "AZURE", "apiVersion": "2024-06-01"},
            "parameters": {
                "temperature": "0.7",
                "maxTokens": 100,
                "topP": "1.0",
                "topK": 40,
                "frequencyPenalty": "-1.5",
                "presencePenalty": "2.0",
            },
        },
    ),
    "vertex": manifest(
        "LLM",
        {
            "provider": "vertex",
            "apiKeyFrom": OPENAI_KEY,
            "vertex": {"cloudProject": "p", "cloudLocation": "us-central1"},
        },
    ),
    "my-assistant": manifest("Agent", {"llmRef": {"name": "gpt-4o"}, "system": SYSTEM}),
    "my-assistant-with-fetch": manifest(
        "Agent", {"llmRef": {"name": "gpt-4o"}, "system": SYSTEM, "mcpServers": [{"name": "fetch"}]}
    ),
    "agent-with-everything": manifest(
        "Agent",
        {
            "llmRef": {"name": "gpt-4o"},
            "system": SYSTEM,
            "description": "d",
            "mcpServers": [{"name": "fetch", "tools": ["fetch"]}, {"name": "other"}],
            "humanContactChannels": [{"name": "ask"}],
            "subAgents": [{"name": "web-search"}],
            "maxTurns": 5,
        },
    ),
    "hello-world-1": manifest("Task", ASK),
    "fetch-task": manifest(
        "Task",
        {
            "agentRef": {"name": "my-assistant"},
            "userMessage": "what is the data at https://swapi.dev/api/people/1? ",
        },
    ),
    "claude-task": manifest(
        "Task", {"agentRef": {"name": "claude"}, "userMessage": "What is your name and primary directive?"}
    ),
    "task-with-a-window": manifest(
        "Task", {"agentRef": {"name": "a"}, "contextWindow": [{"role": "system", "content": "s"}, USER]}
    ),
    "task-with-the-longest-window": manifest("Task", {"agentRef": {"name": "a"}, "contextWindow": [USER] * 1000}),
    "llm-with-limits": manifest(
        "LLM",
        {
            "provider": "openai",
            "apiKeyFrom": OPENAI_KEY,
            "parameters": {"model": "gpt-4o"},
            "maxConcurrency": 8,
            "rateLimit": {"requestsPerMinute": 600, "tokensPerMinute": 100000},
            "fallbacks": [{"name": "claude"}, {"name": "local"}],
        },
    ),
    "task-that-goes-on": manifest(
        "Task", {**ASK, "contextWindowFrom": {"taskRef": {"name": "hello-world-1"}, "turn": 1}}
    ),
    "fetch": manifest("MCPServer", FETCH),
    "fetch-with-approval": manifest("MCPServer", {**FETCH, "approvalContactChannel": {"name": "approval-channel"}}),
    "server-with-env-and-limits": manifest(
        "MCPServer",
        {
            **FETCH,
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": OPENAI_KEY}],
            "resources": {"limits": {"cpu": 1, "memory": "512Mi"}},
            "requestTimeoutSeconds": 10,
            "maxConcurrency": 2,
            "onLostExecution": "Retry",
        },
    ),
    "http-server": manifest(
        "MCPServer",
        {
            "transport": "http",
            "url": "https://example.com/mcp",
            "headers": [{"name": "Authorization", "valueFrom": OPENAI_KEY}],
        },
    ),
    "approval-channel": manifest("ContactChannel", {"type": "email", "apiKeyFrom": HUMANLAYER_KEY, "email": EMAIL}),
    "slack-channel": manifest(
        "ContactChannel", {"type": "slack", "apiKeyFrom": HUMANLAYER_KEY, "slack": {"channelOrUserID": "C0123ABC"}}
    ),
    "mail-server-channel": manifest(
        "ContactChannel",
        {
            "type": "email",
            "email": {
                **EMAIL,
                "smtp": {"host": "mail.example.com", "from": "KubeChain <bot@example.com>", "security": "None"},
            },
            "timeoutSeconds": 3600,
            "onTimeout": "Reject",
        },
    ),
    "slack-app-channel": manifest(
        "ContactChannel",
        {
            "type": "slack",
            "slack": {
                "channelOrUserID": "U0123ABC",
                "allowedResponderIDs": ["U1"],
                "botTokenFrom": {"secretKeyRef": {"name": "slack", "key": "token"}},
                "signingSecretFrom": {"secretKeyRef": {"name": "slack", "key": "signing"}},
            },
        },
    ),
    "webhook-channel": manifest(
        "ContactChannel",
        {
            "type": "webhook",
            "webhook": {
                "url": "https://example.com/ask",
                "signingSecretFrom": {"secretKeyRef": {"name": "hook", "key": "secret"}},
            },
        },
    ),
    "inbox-channel": manifest("ContactChannel", {"type": "inbox"}),
    "fetch-with-approval-of-some-tools": manifest(
        "MCPServer",
        {
            **FETCH,
            "approvalContactChannel": {"name": "approval-channel"},
            "approval": {"tools": ["fetch"], "skipReadOnly": True},
        },
    ),
    "tool-call": manifest(
        "TaskRunToolCall",
        {
            **CALL,
            "toolType": "MCP",
            "target": {"name": "fetch", "tool": "fetch"},
            "requestedAt": "2025-04-01T16:09:02.123456Z",
        },
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_manifest_is_accepted(kubectl: Kubectl, name: str) -> None:
    done = kubectl("create", "--dry-run=server", "-f", "-", manifest=GOOD[name])
    assert done.returncode == 0, done.stderr


BAD: list[tuple[str, Any, str]] = [
    ("LLM", None, "spec: Required value"),
    ("LLM", {"apiKeyFrom": OPENAI_KEY}, "spec.provider: Required value"),
    (
        "LLM",
        {"provider": "acme", "apiKeyFrom": OPENAI_KEY},
        'spec.provider: Unsupported value: "acme": supported values: "openai", "anthropic"',
    ),
    ("LLM", {"provider": "openai"}, "apiKeyFrom is required; only provider openai with parameters.baseUrl"),
    ("LLM", {"provider": "anthropic", "parameters": {"baseUrl": "http://x"}}, "apiKeyFrom is required"),
    (
        "LLM",
        {"provider": "openai", "apiKeyFrom": {"secretKeyRef": {"name": "openai"}}},
        "spec.apiKeyFrom.secretKeyRef.key: Required value",
    ),
    (
        "LLM",
        {"provider": "openai", "apiKeyFrom": OPENAI_KEY, "parameters": {"temperature": "hot"}},
        "spec.parameters.temperature",
    ),
    (
        "LLM",
        {"provider": "openai", "apiKeyFrom": OPENAI_KEY, "parameters": {"temperature": 0.5}},
        "spec.parameters.temperature",
    ),
    (
        "LLM",
        {"provider": "openai", "apiKeyFrom": OPENAI_KEY, "parameters": {"maxTokens": 0}},
        "spec.parameters.maxTokens: Invalid value: 0: spec.parameters.maxTokens in body should be greater than or "
        "equal to 1",
    ),
    (
        "LLM",
        {"provider": "openai", "apiKeyFrom": OPENAI_KEY, "parameters": {"modle": "gpt-4o"}},
        'unknown field "spec.parameters.modle"',
    ),
    ("LLM", {"provider": "vertex", "apiKeyFrom": OPENAI_KEY}, "vertex configuration is required for vertex provider"),
    ("Agent", {"system": SYSTEM}, "spec.llmRef: Required value"),
    ("Agent", {"llmRef": {"name": "x"}}, "spec.system: Required value"),
    ("Agent", {"llmRef": {"name": "x"}, "system": ""}, "spec.system"),
    (
        "Agent",
        {"llmRef": {"name": "x"}, "system": "s", "mcpServers": [{"name": "a"}, {"name": "a"}]},
        'spec.mcpServers[1]: Duplicate value: {"name":"a"}',
    ),
    ("Agent", {"llmRef": {"name": "x"}, "system": "s", "maxTurns": 0}, "spec.maxTurns"),
    ("Task", {"userMessage": "hi"}, "spec.agentRef: Required value"),
    ("Task", {"agentRef": {"name": "a"}}, "set exactly one of userMessage and contextWindow"),
    ("Task", {**ASK, "contextWindow": [USER]}, "set exactly one of userMessage and contextWindow"),
    ("Task", {"agentRef": {"name": "a"}, "userMessage": ""}, "spec.userMessage"),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [{"role": "system", "content": "s"}]},
        "spec.contextWindow: Invalid value: contextWindow needs at least one message with role user",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "userMessage": " \n", "contextWindow": [USER]},
        "spec.userMessage: Invalid value: set exactly one of userMessage and contextWindow; "
        "userMessage is blank: say what the agent is to do",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [USER, {"role": "tool", "toolCallId": "1"}, {"role": "tool"}]},
        "spec.contextWindow: Invalid value: contextWindow[2]: a message with role tool needs the toolCallId",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [{**USER, "contentFrom": {"configMapKeyRef": FOREIGN}}]},
        "contextWindow[0]: contentFrom is written by KubeChain only: give the whole text in content",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [{**USER, "images": [FOREIGN_IMAGE]}]},
        "contextWindow[0]: images are written by KubeChain only: a tool returns them",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [USER, {"role": "earlier"}]},
        "contextWindow[1]: roles earlier and summary are written by KubeChain only: give the messages themselves",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [USER, {"role": "assistant", "toolCalls": [POINTING_CALL]}]},
        "contextWindow[1]: argumentsFrom is written by KubeChain only: give the whole arguments",
    ),
    (
        "Task",
        {"agentRef": {"name": "a"}, "contextWindow": [{"role": "robot"}]},
        'spec.contextWindow[0].role: Unsupported value: "robot"',
    ),
    (
        "Task",
        {
            "agentRef": {"name": "a"},
            "contextWindow": [USER],
            "contextWindowFrom": {"taskRef": {"name": "b"}},
        },
        "contextWindowFrom needs a userMessage to go on with",
    ),
    ("Task", {**ASK, "activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ("MCPServer", {"transport": "carrier-pigeon"}, 'spec.transport: Unsupported value: "carrier-pigeon"'),
    ("MCPServer", {"transport": "stdio"}, "command is required for transport stdio"),
    ("MCPServer", {"transport": "http"}, "url is required for transport http"),
    ("MCPServer", {**FETCH, "url": "http://x"}, "url is for transport http only"),
    (
        "MCPServer",
        {"transport": "http", "url": "http://x", "args": ["a"]},
        "command, args, env and resources are for transport stdio only",
    ),
    ("MCPServer", {"transport": "http", "url": "ftp://x"}, "spec.url"),
    ("MCPServer", {**FETCH, "headers": [{"name": "A", "value": "b"}]}, "headers are for transport http only"),
    (
        "MCPServer",
        {**FETCH, "env": [{"name": "A", "value": "1", "valueFrom": OPENAI_KEY}]},
        "spec.env[0]: Invalid value: set exactly one of value and valueFrom",
    ),
    (
        "ContactChannel",
        {"type": "email", "apiKeyFrom": HUMANLAYER_KEY},
        "email is required for channel type email",
    ),
    (
        "ContactChannel",
        {"type": "slack", "apiKeyFrom": HUMANLAYER_KEY},
        "slack is required for channel type slack",
    ),
    (
        "ContactChannel",
        {"type": "email", "apiKeyFrom": HUMANLAYER_KEY, "email": {"address": "nobody"}},
        "spec.email.address",
    ),
    ("ContactChannel", {"type": "email", "email": EMAIL}, "an email channel needs either apiKeyFrom"),
    ("ContactChannel", {"type": "webhook"}, "webhook is required for channel type webhook"),
    ("ContactChannel", {"type": "inbox", "onTimeout": "Approve"}, "onTimeout needs timeoutSeconds"),
    ("MCPServer", {**FETCH, "approval": {"skipReadOnly": True}}, "approval needs approvalContactChannel"),
    ("TaskRunToolCall", {**CALL, "toolType": "Magic"}, 'spec.toolType: Unsupported value: "Magic"'),
    ("TaskRunToolCall", {k: v for k, v in CALL.items() if k != "arguments"}, "spec.arguments: Required value"),
    ("TaskRunToolCall", {**CALL, "requestedAt": "yesterday"}, "spec.requestedAt"),
]


@pytest.mark.parametrize(("kind", "spec", "complaint"), BAD, ids=[f"{kind}: {words}" for kind, _, words in BAD])
def test_a_bad_manifest_is_refused_with_its_field(kubectl: Kubectl, kind: str, spec: Any, complaint: str) -> None:
    bad = manifest(kind, spec)
    if spec is None:
        del bad["spec"]
    refused = kubectl("create", "--dry-run=server", "-f", "-", manifest=bad)
    assert refused.returncode != 0
    assert complaint in refused.stderr


CREATED: dict[str, Any] = {
    "Task": {**ASK, "maxTurns": 5},
    "Task with a window": {"agentRef": {"name": "a"}, "contextWindow": [USER, USER]},
    "TaskRunToolCall": CALL,
    "TaskRunToolCall with a question": {**CALL, "toolType": "HumanContact"},
}
# Changes in the order a person would try them on one object: None = accepted, otherwise the words of the refusal.
CHANGES: dict[str, list[tuple[Any, str | None]]] = {
    "Task": [
        ({"agentRef": {"name": "other"}}, "agentRef is immutable: create a new Task instead"),
        ({"userMessage": "something else"}, "userMessage is immutable: create a new Task instead"),
        ({"maxTurns": None}, "maxTurns is immutable: create a new Task instead"),
        ({"activeDeadlineSeconds": 5}, "activeDeadlineSeconds is immutable: create a new Task instead"),
        ({"contextWindowFrom": {"taskRef": {"name": "b"}}}, "contextWindowFrom is immutable"),
        ({"delegatedFrom": {"toolCallRef": {"name": "c"}, "depth": 1}}, "delegatedFrom is immutable"),
        (
            {"userMessage": None, "contextWindow": [USER], "cancel": True},
            "spec: Invalid value: userMessage is immutable: create a new Task instead; "
            "contextWindow is immutable: create a new Task instead\n",
        ),
        ({"ttlSecondsAfterFinished": 60}, None),
        ({"ttlSecondsAfterFinished": 30}, None),
        ({"cancel": False}, None),
        ({"cancel": True}, None),
        ({"cancel": False}, "a cancelled Task stays cancelled"),
        ({"cancel": None}, "a cancelled Task stays cancelled"),
    ],
    "Task with a window": [
        ({"contextWindow": [USER]}, "contextWindow is immutable"),
        ({"contextWindow": [USER, {**USER, "content": "ho"}]}, "contextWindow is immutable"),
        ({"contextWindow": None}, "contextWindow is immutable"),
        ({"userMessage": "hi"}, "userMessage is immutable"),
        ({"ttlSecondsAfterFinished": 60}, None),
    ],
    "TaskRunToolCall": [
        ({"arguments": "{}"}, "arguments is immutable"),
        ({"toolRef": {"name": "other"}}, "toolRef is immutable"),
        ({"toolCallId": "call_2"}, "toolCallId is immutable"),
        ({"taskRunRef": {"name": "other"}}, "taskRunRef is immutable"),
        ({"toolType": "MCP"}, "toolType is immutable"),
        ({"target": {"name": "fetch"}}, "target is immutable"),
        ({"spanContext": {"traceID": "d3fb"}}, "spanContext is immutable"),
        ({"requestedAt": "2025-04-01T16:09:02.123456Z"}, "requestedAt is immutable"),
        ({"delegation": {"depth": 1, "maxDepth": 1}}, "delegation is immutable"),
        (
            {"toolCallId": "call_2", "arguments": "{}", "decision": {"approved": True}},
            "spec: Invalid value: toolCallId is immutable; arguments is immutable\n",
        ),
        ({"decision": {"comment": "hm"}}, "spec.decision.approved: Required value"),
        ({"decision": {"approved": True, "arguments": "[1]"}}, "arguments have to be a JSON object, as text"),
        ({"decision": {"approved": True, "arguments": "url: x"}}, "arguments have to be a JSON object, as text"),
        ({"decision": {"approved": False, "comment": "not this site", "by": "me", "arguments": " {}\n"}}, None),
        ({"decision": {"approved": True}}, "decision was given already and can not be changed"),
        ({"decision": None}, "decision was given already and can not be changed"),
        (
            {"response": {"message": "blue"}},
            "spec.response: Invalid value: response answers a question to a person: a tool call is approved or "
            "rejected with decision",
        ),
    ],
    "TaskRunToolCall with a question": [
        (
            {"decision": {"approved": True}},
            "spec.decision: Invalid value: decision approves or rejects the call of a tool: a question is answered "
            "with response",
        ),
        ({"response": {"message": ""}}, "spec.response.message"),
        ({"response": {"message": "blue", "by": "me"}}, None),
        ({"response": {"message": "red"}}, "response was given already and can not be changed"),
        ({"response": None}, "response was given already and can not be changed"),
    ],
}


@pytest.mark.parametrize("what", CHANGES)
def test_only_the_open_fields_change_and_answers_are_set_once(kubectl: Kubectl, namespace: str, what: str) -> None:
    kind = what.split()[0]
    created = kubectl("-n", namespace, "create", "-f", "-", manifest=manifest(kind, CREATED[what]))
    assert created.returncode == 0, created.stderr
    for spec, complaint in CHANGES[what]:
        body = json.dumps({"spec": spec})
        done = kubectl("-n", namespace, "patch", kind, "probe", "--type=merge", "-p", body)
        if complaint is None:
            assert done.returncode == 0, f"{body}: {done.stderr}"
        else:
            assert done.returncode != 0, body
            assert complaint in done.stderr


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "ToolCallRejected"])
def test_a_tool_call_that_has_ended_takes_no_answer(kubectl: Kubectl, namespace: str, phase: str) -> None:
    kubectl("-n", namespace, "create", "-f", "-", manifest=manifest("TaskRunToolCall", CALL))
    patch = ("-n", namespace, "patch", "trtc", "probe", "--type=merge", "-p")
    ended = kubectl(*patch, json.dumps({"status": {"phase": phase}}), "--subresource=status")
    assert ended.returncode == 0, ended.stderr
    for field, answer in (("decision", {"approved": True}), ("response", {"message": "blue"})):
        refused = kubectl(*patch, json.dumps({"spec": {field: answer}}))
        assert f"spec.{field}: Invalid value: " in refused.stderr
        assert f"the tool call has ended: a {field} comes too late" in refused.stderr
    labelled = kubectl("-n", namespace, "label", "trtc", "probe", "a=b")
    assert labelled.returncode == 0, labelled.stderr


def test_a_new_tool_call_reads_as_pending(kubectl: Kubectl, namespace: str) -> None:
    kubectl("-n", namespace, "create", "-f", "-", manifest=manifest("TaskRunToolCall", CALL))
    lines = kubectl("-n", namespace, "get", "trtc").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "PHASE", "TASKRUN", "TOOL"],
        ["probe", "Pending", "fetch-task", "fetch__fetch"],
    ]
    watched = kubectl("-n", namespace, "get", "taskruntoolcall", "probe", "-o", "jsonpath={.status}")
    assert json.loads(watched.stdout) == {"phase": "Pending"}


def test_a_status_takes_known_words_only(kubectl: Kubectl, namespace: str) -> None:
    kubectl("-n", namespace, "create", "-f", "-", manifest=manifest("Task", ASK))
    body = json.dumps({"status": {"phase": "Thinking"}})
    refused = kubectl("-n", namespace, "patch", "task", "probe", "--subresource=status", "--type=merge", "-p", body)
    assert 'status.phase: Unsupported value: "Thinking": supported values: "Pending"' in refused.stderr


@pytest.mark.parametrize("source", [{}, {"taskRunToolCallRef": {"name": "a"}, "configMapKeyRef": FOREIGN}])
def test_a_reference_in_a_status_names_one_place(kubectl: Kubectl, namespace: str, source: Manifest) -> None:
    kubectl("-n", namespace, "create", "-f", "-", manifest=manifest("Task", ASK))
    body = json.dumps({"status": {"contextWindow": [{**USER, "contentFrom": source}]}})
    refused = kubectl("-n", namespace, "patch", "task", "probe", "--subresource=status", "--type=merge", "-p", body)
    assert "status.contextWindow[0].contentFrom: " in refused.stderr


def test_all_kinds_are_listed_by_their_category(kubectl: Kubectl, namespace: str) -> None:
    kubectl("-n", namespace, "create", "-f", "-", manifest=GOOD["my-assistant"])
    kubectl("-n", namespace, "create", "-f", "-", manifest=GOOD["gpt-4o"])
    listed = kubectl("-n", namespace, "get", "kubechain", "-o", "name").stdout.split()
    assert sorted(listed) == ["agent.kubechain.humanlayer.dev/probe", "llm.kubechain.humanlayer.dev/probe"]
