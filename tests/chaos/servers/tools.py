"""A stdio MCP server that notes every execution of its tools in a file, before and after: ``tools.py FILE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

# Run as a file, so that it needs nothing of the working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.chaos.notes import note
from tests.chaos.orders import SERVER, result_of
from tests.chaos.servers.stdio import StdioServer

LOG = Path(sys.argv[1])
server = StdioServer(SERVER)


async def execute(task: str, turn: int, index: int, ms: int) -> str:
    note(LOG, event="start", task=task, turn=turn, index=index)
    await asyncio.sleep(ms / 1000)
    note(LOG, event="end", task=task, turn=turn, index=index)
    return result_of((task, turn, index))


@server.tool()
async def act(_meta: Any, task: str, turn: int, index: int, ms: int, verdict: str = "") -> str:
    """Has an effect; nothing says that it may have it twice. ``verdict`` tells the person what to say of the call."""
    return await execute(task, turn, index, ms)


@server.tool(readOnlyHint=True)
async def look(_meta: Any, task: str, turn: int, index: int, ms: int) -> str:
    """Only reads."""
    return await execute(task, turn, index, ms)


@server.tool(idempotentHint=True)
async def put(_meta: Any, task: str, turn: int, index: int, ms: int) -> str:
    """Has the same effect however often it runs."""
    return await execute(task, turn, index, ms)


if __name__ == "__main__":
    server.run()
