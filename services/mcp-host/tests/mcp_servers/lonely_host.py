"""A host that connects to the server given as its arguments and waits to be killed; prints its state when connected."""

import os
import sys

import uvloop

from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connection import ServerConnection


async def main() -> None:
    server = build_mcp_server(command=sys.argv[1], args=sys.argv[2:], connected=False)

    async def no_secrets(_: object) -> dict[str, dict[str, str] | None]:
        return {}

    connection = ServerConnection(server, no_secrets, os.environ, lambda: print(connection.state.phase, flush=True))
    await connection.run()


uvloop.run(main())
