"""A stdio MCP server whose tool tells a URL of every execution, before and after: the witness outlives its pod.

Nothing but Python's own library: `python3 -c "$(cat noting_server.py)" URL`. Calls run side by side.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from typing import Any

COUNT = {
    "name": "count",
    "description": "Takes so many milliseconds, and says which call it was.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "task": {"type": "string"},
            "turn": {"type": "integer"},
            "index": {"type": "integer"},
            "ms": {"type": "integer"},
        },
        "required": ["task", "turn", "index", "ms"],
    },
}
printing = threading.Lock()


def note(event: str, arguments: dict[str, Any]) -> None:
    body = json.dumps({"event": event, **arguments}).encode()
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=body), timeout=10).close()


def count(arguments: dict[str, Any]) -> dict[str, Any]:
    note("start", arguments)
    time.sleep(arguments["ms"] / 1000)
    note("end", arguments)
    return {"content": [{"type": "text", "text": "counted {task} {turn} {index}".format(**arguments)}]}


def answer(message: dict[str, Any]) -> None:
    method, params = message["method"], message.get("params") or {}
    result: dict[str, Any] = {}
    if method == "initialize":
        info = {"name": "noting", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        result = {"tools": [COUNT]}
    elif method == "tools/call":
        result = count(params["arguments"])
    with printing:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            threading.Thread(target=answer, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
