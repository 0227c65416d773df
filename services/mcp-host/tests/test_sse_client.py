"""Connections to servers of HTTP with SSE that do what the SDK's own would not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from mcp_testbed import PATIENCE, connect, eventually, http_server, serving

from kubechain_mcp_host.connections import sse_client
from kubechain_mcp_host.connections.state import Phase
from kubechain_mcp_host.errors import ConnectionLostError
from kubechain_mcp_host.stdio.message_reader import MAX_BYTES

pytestmark = pytest.mark.integration


class SSEServer:
    """Has one client at a time."""

    def __init__(self) -> None:
        self.endpoint = "/message"
        self.messages = 0
        self.streams = 0
        self.tools = ["fill", "refuse", "hang", "babble"]
        self.hung = asyncio.Event()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        self._answers = asyncio.Queue()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
        while True:
            answer = json.dumps({"jsonrpc": "2.0", **await self._answers.get()})
            await response.write(f"event: message\ndata: {answer}\n\n".encode())

    async def take(self, request: web.Request) -> web.Response:
        self.messages += 1
        message = json.loads(await request.read())
        if "id" not in message:
            return web.Response(status=202)
        match message["method"]:
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "events", "version": "1"},
                }
            case "tools/list":
                result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]}
            case _ if message["params"]["name"] == "refuse":
                return web.Response(status=500)
            case _ if message["params"]["name"] == "hang":
                await self.hung.wait()
                return web.Response(status=202)
            case _ if message["params"]["name"] == "babble":
                return web.Response(status=202, body=b"x" * (MAX_BYTES + 1), content_type="text/event-stream")
            case _:
                text = "x" * message["params"]["arguments"]["bytes"]
                result = {"content": [{"type": "text", "text": text}]}
        self._answers.put_nowait({"id": message["id"], "result": result})
        return web.Response(status=202)


@pytest.fixture
async def sse_server() -> AsyncIterator[tuple[SSEServer, str]]:
    server = SSEServer()
    app = web.Application()
    app.router.add_get("/sse", server.stream)
    app.router.add_post("/message", server.take)
    async with serving(app) as base_url:
        yield server, f"{base_url}/sse"


async def test_a_result_may_be_as_large_as_over_other_transports(sse_server: tuple[SSEServer, str]) -> None:
    server, url = sse_server
    async with connect(http_server(url)) as harness:
        assert len(await harness.call("fill", bytes=2 * 1024 * 1024)) == 2 * 1024 * 1024
        assert len(await harness.call("fill", bytes=MAX_BYTES - 1024)) == MAX_BYTES - 1024
        assert server.streams == 1


async def test_a_message_over_the_bound_ends_the_connection_and_is_told_of(sse_server: tuple[SSEServer, str]) -> None:
    server, url = sse_server
    async with connect(http_server(url)) as harness:
        with pytest.raises(ConnectionLostError, match="the server sent more than 16,777,216 bytes in one message"):
            await harness.call("fill", bytes=MAX_BYTES)
        assert (await harness.failed()).error == "the server sent more than 16,777,216 bytes in one message."
        assert await harness.call("fill", bytes=3) == "xxx"
        assert server.streams == 2


async def test_a_message_that_is_refused_ends_its_call(sse_server: tuple[SSEServer, str]) -> None:
    _, url = sse_server
    async with connect(http_server(url)) as harness, asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionLostError):
            await harness.call("refuse")
        assert await harness.call("fill", bytes=3) == "xxx"


async def test_a_message_that_is_never_taken_ends_the_connection_and_is_told_of(
    sse_server: tuple[SSEServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = sse_server
    monkeypatch.setattr(sse_client, "POST_SECONDS", 0.5)
    async with connect(http_server(url)) as harness, asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionLostError, match=r"^the server did not take a message within 0.5 seconds\.$"):
            await harness.call("hang")
        server.hung.set()
        assert await harness.call("fill", bytes=3) == "xxx"


async def test_a_message_may_not_be_answered_without_an_end(sse_server: tuple[SSEServer, str]) -> None:
    _, url = sse_server
    async with connect(http_server(url)) as harness, asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionLostError):
            await harness.call("babble")
        assert await harness.call("fill", bytes=3) == "xxx"


async def test_messages_go_to_the_servers_own_origin_alone(sse_server: tuple[SSEServer, str]) -> None:
    """The headers of the MCPServer, which hold credentials, go with each of them."""
    server, url = sse_server
    server.endpoint = url.replace("127.0.0.1", "localhost").replace("/sse", "/message")
    async with connect(http_server(url)) as harness:
        await eventually(lambda: harness.state.phase is Phase.FAILED)
        assert server.streams
        assert not server.messages
