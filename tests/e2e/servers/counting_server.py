"""A stdio MCP server that notes every execution of its tool in a file, before and after: the witness of the tests.

`counting_server.py FILE`. Each line is JSON: the event (start, end or interrupted), the idempotency key and the
arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IDEMPOTENCY_KEY = "kubechain.humanlayer.dev/idempotency-key"


def note(event: str, **fields: object) -> None:
    line = json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **fields}) + "\n"
    with open(sys.argv[1], "ab", buffering=0) as log:  # one write of less than a page is one line, whoever dies
        log.write(line.encode())


def is_open() -> bool:
    return os.path.exists(sys.argv[1] + ".open")


async def count(meta: Mapping[str, Any], task: str, turn: int, index: int, ms: int) -> str:
    """Takes ``ms`` milliseconds, or below 0 until there is a file ``<FILE>.open``, and says which call it was."""
    call = {"key": meta.get(IDEMPOTENCY_KEY), "task": task, "turn": turn, "index": index}
    note("start", **call)
    try:
        while ms < 0 and not is_open():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
        await asyncio.sleep(max(0, ms) / 1000)
    except asyncio.CancelledError:
        note("interrupted", **call)
        raise
    note("end", **call)
    return f"counted {task} {turn} {index}"


if __name__ == "__main__":
    # Run as a file, so that it needs nothing of the working directory.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.chaos.servers.stdio import StdioServer

    server = StdioServer("counting")
    server.tool()(count)
    server.run()
