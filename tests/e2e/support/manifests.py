"""The objects of the tests other than the tutorial's, which are in its own YAML."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVERS = Path(__file__).resolve().parents[1] / "servers"
SYSTEM = "You are a helpful assistant. Your job is to help the user with their tasks.\n"

Object = dict[str, Any]


def build(kind: str, name: str, spec: Mapping[str, Any]) -> Object:
    return {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }


def secret(name: str, **values: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def llm(base_url: str, name: str = "gpt-4o", *, key_name: str = "OPENAI_API_KEY", **parameters: Any) -> Object:
    """An LLM of provider openai with its key in Secret ``openai``."""
    return build(
        "LLM",
        name,
        {
            "provider": "openai",
            "parameters": {"model": "gpt-4o", "baseUrl": base_url, **parameters},
            "apiKeyFrom": {"secretKeyRef": {"name": "openai", "key": key_name}},
        },
    )


def agent(name: str = "my-assistant", servers: Sequence[str] = (), **spec: Any) -> Object:
    full = {"llmRef": {"name": "gpt-4o"}, "system": SYSTEM, **spec}
    if servers:
        full["mcpServers"] = [{"name": server} for server in servers]
    return build("Agent", name, full)


def task(name: str, message: str, agent: str = "my-assistant", **spec: Any) -> Object:
    return build("Task", name, {"agentRef": {"name": agent}, "userMessage": message, **spec})


def from_secret(name: str, secret_name: str, key: str) -> Object:
    """An environment variable or a header with its value in a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}}


def stdio_server(name: str, command: str, *args: str, env: Sequence[Object] = (), **spec: Any) -> Object:
    full = {"transport": "stdio", "command": command, "args": list(args), **spec}
    return build("MCPServer", name, {**full, "env": list(env)} if env else full)


def own_server(name: str, script: str, *args: str, env: Sequence[Object] = (), **spec: Any) -> Object:
    """One of the MCP servers in tests/e2e/servers, run by our own interpreter."""
    return stdio_server(name, sys.executable, str(SERVERS / script), *args, env=env, **spec)


def http_server(name: str, url: str, headers: Sequence[Object] = ()) -> Object:
    spec: Object = {"transport": "http", "url": url}
    return build("MCPServer", name, {**spec, "headers": list(headers)} if headers else spec)
