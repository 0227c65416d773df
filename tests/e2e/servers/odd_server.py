"""A stdio MCP server that says whatever it likes, by hand: `odd_server.py many | odd | surrogate`.

`many`: 200 tools. `odd`: names and schemas that no provider takes as they are.
"""

from __future__ import annotations

import json
import sys
from typing import Any

RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "description": "r" * 20_000}
ODD_TOOLS: list[dict[str, Any]] = [
    {"name": "n" * 64},
    {"name": "m" * 128},
    {"name": "a.b/c d", "description": ""},
    {"name": "a_b_c_d"},
    {"name": "имя-🚀"},
    {"name": "recursive", "inputSchema": RECURSIVE},
    {"name": "untyped", "inputSchema": {"type": "object", "properties": {"x": {"default": None, "anyOf": [True, {}]}}}},
    {"name": "invalid", "inputSchema": {"type": "object", "properties": {"x": {"type": "no such type"}}}},
]


def tools() -> list[dict[str, Any]]:
    found = ODD_TOOLS if "odd" in sys.argv else [{"name": f"tool_{n}", "description": "d" * 200} for n in range(200)]
    return [{"inputSchema": {"type": "object"}, **tool} for tool in found]


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            known = {"name": "odd", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": known}
        case "tools/list":
            return {"tools": tools()}
        case "tools/call":
            said = json.dumps({"tool": params["name"], "arguments": params.get("arguments")}, ensure_ascii=False)
            half = "\ud83d" if params.get("arguments", {}).get("half") else ""
            return {"content": [{"type": "text", "text": said + half}]}
        case "ping":
            return {}
    return None


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request["method"], request.get("params") or {})
        outcome = {"error": {"code": -32601, "message": "unknown"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome}), flush=True)
