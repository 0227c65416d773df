"""An MCP server over streamable HTTP in the test's own process, which fails as it is told to."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from aiohttp import web

TOOL = {"name": "greet", "description": "says hello", "inputSchema": {"type": "object"}}
INFO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "r", "version": "1"}}


class RemoteServer:
    """``status`` other than 200 answers everything with it; ``forget_sessions`` is what a restart does."""

    def __init__(self) -> None:
        self.status = 200
        self.ran = 0
        self.ran_in: list[str] = []
        """The session of each call."""
        self._sessions: set[str] = set()

    def forget_sessions(self) -> None:
        self._sessions.clear()

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/mcp", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://elsewhere.example/mcp"})
        message = json.loads(await request.read())
        method = message.get("method")
        if method == "initialize":
            session = uuid4().hex
            self._sessions.add(session)
            return self._answer(message, INFO, {"Mcp-Session-Id": session})
        if method == "server/discover":
            return self._refuse(message)
        if request.headers.get("Mcp-Session-Id") not in self._sessions:
            return web.Response(status=404)
        if "id" not in message:
            return web.Response(status=202)
        if method == "tools/list":
            return self._answer(message, {"tools": [TOOL]})
        if method == "tools/call":
            self.ran += 1
            self.ran_in.append(request.headers["Mcp-Session-Id"])
            return self._answer(message, {"content": [{"type": "text", "text": f"hello {self.ran}"}]})
        return self._refuse(message)

    def _answer(
        self, message: dict[str, Any], result: dict[str, Any], headers: dict[str, str] | None = None
    ) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)

    def _refuse(self, message: dict[str, Any]) -> web.Response:
        error = {"code": -32601, "message": "no such method"}
        return web.json_response({"jsonrpc": "2.0", "id": message.get("id"), "error": error})
