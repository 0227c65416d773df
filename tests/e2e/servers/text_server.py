"""A stdio MCP server whose results are long and all different: `text` says its number again and again."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("texts", log_level="ERROR")


@server.tool()
def text(number: int, size: int) -> str:
    """A text of ``size`` characters that no other number gives."""
    line = f"this is line after line of text number {number}\n"
    return (line * (size // len(line) + 1))[:size]


if __name__ == "__main__":
    server.run("stdio")
