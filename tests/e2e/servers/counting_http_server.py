"""The counting server over streamable HTTP: `counting_http_server.py FILE PORT`."""

import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer

# Run as a file, so that it needs nothing of the working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.e2e.servers import counting_server

server = MCPServer("counting", log_level="ERROR")


@server.tool(description=counting_server.count.__doc__)
async def count(task: str, turn: int, index: int, ms: int, ctx: Context) -> str:
    return await counting_server.count(dict(ctx.request_context.meta or {}), task, turn, index, ms)


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
