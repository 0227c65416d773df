"""A host that connects to the server given as its arguments and waits to be killed; prints its state when connected.

With ``--isolated FOLDER`` before them the server is the probe: it is isolated, scatters daemons, and the pids of all
its processes are printed.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connections.connection import ServerConnection
from kubechain_mcp_host.guard.landlock import WHOLE_ABI
from kubechain_mcp_host.stdio.isolation import plan_isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher


async def main(command: list[str]) -> None:
    launcher = StdioLauncher(os.environ)
    isolated = command[0] == "--isolated"
    if isolated:
        folder, command = command[1], command[2:]
        isolation = plan_isolation(
            os.environ,
            data=Path(folder),
            extra_readable=[str(Path(command[1]).parent)],
            nats_url="nats://127.0.0.1",
            min_abi=WHOLE_ABI,
        )
        launcher = StdioLauncher(os.environ, isolation)
    server = build_mcp_server(command=command[0], args=command[1:], connected=False)

    async def no_secrets(_: object) -> dict[str, dict[str, str] | None]:
        return {}

    connection = ServerConnection(server, no_secrets, launcher, lambda: print(connection.state.phase, flush=True))
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.run())
        if isolated:
            session = await connection.wait_session(30)
            pids: list[int] = []
            for tool in ("facts", "scatter"):
                answer = json.loads((await session.call(tool, {}, {})).content[0].text)  # type: ignore[union-attr]
                pids += [answer["pid"], answer["guard"]] if tool == "facts" else answer
            print(json.dumps(pids), flush=True)


uvloop.run(main(sys.argv[1:]))
