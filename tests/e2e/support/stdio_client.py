"""Asks a stdio MCP server for its tools with nothing but JSON lines: an account that is independent of the product."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any


def list_tools(command: list[str], env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The server's own `tools/list`."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(env), text=True
    ) as process:
        try:
            client = {"name": "probe", "version": "1"}
            hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
            _ask(process, 1, "initialize", hello)
            _send(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            tools: list[dict[str, Any]] = _ask(process, 2, "tools/list", {})["tools"]
            return tools
        finally:
            process.kill()


def _send(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _ask(process: subprocess.Popen[str], number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    _send(process, {"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            result: dict[str, Any] = message["result"]
            return result
    raise AssertionError(f"the server ended before it answered {method}")
