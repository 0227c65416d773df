"""Builds resources for tests: valid by default, each with the one thing that the test is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Task, TaskRunToolCall

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def _object(
    kind: str, name: str, spec: dict[str, Any], status: dict[str, Any], metadata: dict[str, Any]
) -> dict[str, Any]:
    meta = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-11-23T11:59:59Z",
        **metadata,
    }
    return {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": kind,
        "metadata": meta,
        "spec": spec,
        "status": status,
    }


def build_task(
    name: str = "hello", *, status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
) -> Task:
    """A Task of agent ``my-assistant``; keyword arguments are spec fields in camelCase."""
    full = {"agentRef": {"name": "my-assistant"}, **spec}
    if "contextWindow" not in full:
        full.setdefault("userMessage", "What is the capital of the moon?")
    return Task.model_validate(_object("Task", name, full, status or {}, metadata or {}))


def build_agent(name: str = "my-assistant", *, ready: bool = True, generation: int = 1, **spec: Any) -> Agent:
    full = {"llmRef": {"name": "gpt-4o"}, "system": "You are a helpful assistant.", **spec}
    status = {"ready": True, "status": "Ready", "observedGeneration": 1} if ready else {}
    return Agent.model_validate(_object("Agent", name, full, status, {"generation": generation}))


def build_llm(name: str = "gpt-4o", *, ready: bool = True, **spec: Any) -> LLM:
    full = {
        "provider": "openai",
        "parameters": {"model": name},
        "apiKeyFrom": {"secretKeyRef": {"name": "openai", "key": "OPENAI_API_KEY"}},
        **spec,
    }
    status = {"ready": True, "status": "Ready", "observedGeneration": 1} if ready else {}
    return LLM.model_validate(_object("LLM", name, full, status, {}))


def build_mcp_server(
    name: str = "fetch", *, tools: tuple[str, ...] = ("fetch",), connected: bool = True, **spec: Any
) -> MCPServer:
    full = {"transport": "stdio", "command": "uvx", "args": ["mcp-server-fetch"], **spec}
    status = {
        "connected": connected,
        "ready": connected,
        "status": "Ready" if connected else "Error",
        "observedGeneration": 1,
        "tools": [{"name": tool, "description": f"does {tool}", "inputSchema": {"type": "object"}} for tool in tools],
    }
    return MCPServer.model_validate(_object("MCPServer", name, full, status, {}))


def build_contact_channel(name: str = "approval-channel", *, ready: bool = True, **spec: Any) -> ContactChannel:
    """A channel of type inbox, unless the spec says otherwise."""
    status = {"ready": True, "status": "Ready", "observedGeneration": 1} if ready else {}
    return ContactChannel.model_validate(_object("ContactChannel", name, {"type": "inbox", **spec}, status, {}))


def build_call(
    name: str = "hello-1234567-tc-01", *, task: Task | None = None, status: dict[str, Any] | None = None, **spec: Any
) -> TaskRunToolCall:
    owner = task or build_task()
    full = {
        "toolCallId": "call_1",
        "taskRunRef": {"name": owner.name},
        "toolRef": {"name": "fetch__fetch"},
        "toolType": "MCP",
        "target": {"name": "fetch", "tool": "fetch"},
        "arguments": "{}",
        "requestedAt": "2026-11-23T11:59:59.500000Z",
        **spec,
    }
    reference = owner.build_owner_reference().to_wire()
    return TaskRunToolCall.model_validate(
        _object("TaskRunToolCall", name, full, status or {}, {"ownerReferences": [reference]})
    )
