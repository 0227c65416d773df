"""A stdio MCP server that notes every execution of its tool in a file, before and after: the witness of the tests.

`counting_server.py FILE [PORT]`; with a port over streamable HTTP instead of stdio. Each line is JSON: the event
(start, end or interrupted), the idempotency key and the arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from mcp.server.mcpserver import Context, MCPServer

IDEMPOTENCY_KEY = "kubechain.humanlayer.dev/idempotency-key"

server = MCPServer("counting", log_level="ERROR")


def note(event: str, **fields: object) -> None:
    line = json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **fields}) + "\n"
    with open(sys.argv[1], "ab", buffering=0) as log:  # one write of less than a page is one line, whoever dies
        log.write(line.encode())


@server.tool()
async def count(task: str, turn: int, index: int, ms: int, ctx: Context) -> str:
    """Takes ``ms`` milliseconds, and says which call it was."""
    meta = dict(ctx.request_context.meta or {})
    call = {"key": meta.get(IDEMPOTENCY_KEY), "task": task, "turn": turn, "index": index}
    note("start", **call)
    try:
        await asyncio.sleep(ms / 1000)
    except asyncio.CancelledError:
        note("interrupted", **call)
        raise
    note("end", **call)
    return f"counted {task} {turn} {index}"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
