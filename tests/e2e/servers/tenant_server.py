"""A stdio MCP server with a secret in its environment, which it never gives away whole.

`tenant_server.py [fail]`: with `fail` it prints the secret to its standard error and dies at once.
"""

from __future__ import annotations

import hashlib
import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tenant", log_level="ERROR")


def token() -> str:
    return os.environ["TENANT_TOKEN"]


@server.tool()
def whoami() -> str:
    """A fingerprint of the token."""
    return hashlib.sha256(token().encode()).hexdigest()[:16]


@server.tool()
def blurt() -> str:
    """Gives the token away."""
    return f"the token is {token()}"


@server.tool()
def stumble() -> str:
    """Fails with the token in the error."""
    raise ToolError(f"the backend refused {token()}")


@server.tool()
def list_environment() -> list[str]:
    """The names of the variables that the server got."""
    return sorted(os.environ)


if sys.argv[1:] == ["fail"]:
    sys.exit(f"cannot log in with {token()}")
server.run("stdio")
