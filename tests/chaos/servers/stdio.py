"""As much of MCP over stdio as the tests' own servers need.

Importing the SDK takes a second of CPU, and tests start servers by the hundred. Servers that are made with the SDK, and
those of others, have tests of their own (tests/e2e/test_third_party_mcp.py, test_isolation.py).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Json = dict[str, Any]
Run = Callable[..., Awaitable[str]]

LONGEST_LINE = 2**24
JSON_TYPES = {"str": "string", "int": "integer"}


class StdioServer:
    """``tool`` adds coroutines, whose first parameter is the request's ``_meta``; ``run`` serves until the input ends.

    What a coroutine raises is the result, marked as an error. A call that the client cancels is cancelled.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tools: dict[str, tuple[Json, Run]] = {}
        self._running: dict[Any, asyncio.Task[None]] = {}

    def tool(self, **annotations: bool) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            self._tools[run.__name__] = (describe(run, annotations), run)
            return run

        return add

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        lines = asyncio.StreamReader(LONGEST_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async with asyncio.TaskGroup() as group:
            async for line in lines:
                self._handle(group, json.loads(line))
            for call in self._running.values():
                call.cancel()

    def _handle(self, group: asyncio.TaskGroup, message: Json) -> None:
        number, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        if method == "notifications/cancelled":
            if call := self._running.get(params["requestId"]):
                call.cancel()
        elif number is not None and method == "tools/call":
            self._running[number] = group.create_task(self._call(number, params))
            self._running[number].add_done_callback(lambda _: self._running.pop(number))
        elif number is not None:
            send(number, self._answer(method, params))

    def _answer(self, method: str | None, params: Json) -> Json:
        match method:
            case "initialize":
                known = {"name": self._name, "version": "1"}
                version = params["protocolVersion"]
                return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": known}}
            case "tools/list":
                return {"result": {"tools": [described for described, _ in self._tools.values()]}}
            case "ping":
                return {"result": {}}
        return {"error": {"code": -32601, "message": f"no method {method}"}}

    async def _call(self, number: Any, params: Json) -> None:
        _, run = self._tools[params["name"]]
        try:
            text, failed = await run(params.get("_meta") or {}, **(params.get("arguments") or {})), False
        except Exception as error:
            text, failed = f"{type(error).__name__}: {error}", True
        send(number, {"result": {"content": [{"type": "text", "text": text}], "isError": failed}})


def describe(run: Run, annotations: dict[str, bool]) -> Json:
    """The tool, as its coroutine declares itself."""
    _, *parameters = inspect.signature(run).parameters.values()
    schema = {
        "type": "object",
        "properties": {parameter.name: {"type": JSON_TYPES[parameter.annotation]} for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.default is parameter.empty],
    }
    return {
        "name": run.__name__,
        "description": inspect.getdoc(run),
        "inputSchema": schema,
        "annotations": annotations,
    }


def send(number: Any, outcome: Json) -> None:
    print(json.dumps({"jsonrpc": "2.0", "id": number, **outcome}), flush=True)
