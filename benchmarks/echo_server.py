"""The MCP server of the benchmarks: ``echo`` answers at once, ``text`` answers with ``size`` bytes."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("echo")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def echo(message: str) -> str:
    """Returns the message."""
    return message


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def text(size: int) -> str:
    """Returns a text of ``size`` characters."""
    return "x" * size


if __name__ == "__main__":
    server.run("stdio")
