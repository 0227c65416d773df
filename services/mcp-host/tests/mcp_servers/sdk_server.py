"""A server written with the MCP SDK: ``sdk_server.py stdio`` or ``sdk_server.py streamable-http|sse PORT``."""

import asyncio
import os
import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("probe", log_level="ERROR")


class Sum(BaseModel):
    total: int


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def echo(text: str) -> str:
    """Gives the text back."""
    return text


@server.tool()
def add(a: int, b: int) -> Sum:
    """Adds two numbers."""
    return Sum(total=a + b)


@server.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ToolError(f"it broke: {why}")


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def header(name: str, ctx: Context) -> str:
    """One header of the request."""
    return (ctx.headers or {}).get(name, "none")


@server.tool()
def meta(ctx: Context) -> str:
    """The _meta of the request."""
    return str(dict(ctx.request_context.meta or {}))


@server.tool()
async def grow(ctx: Context) -> str:
    """Adds a tool and says so."""
    server.add_tool(lambda: "new", name="new", description="It is new.")
    await ctx.notify_tools_changed()
    return "grown"


match sys.argv[1]:
    case "sse":
        server.run("sse", host="127.0.0.1", port=int(sys.argv[2]))
    case "streamable-http":
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    case _:
        server.run("stdio")
