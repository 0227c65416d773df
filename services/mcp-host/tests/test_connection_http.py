"""Connections to HTTP servers, over streamable HTTP and over SSE."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from mcp import MCPError
from mcp_testbed import PATIENCE, Harness, RemoteServer, connect, eventually, http_server, serving

from kubechain_mcp_host.connections.state import Phase, Timing
from kubechain_mcp_host.errors import ConnectionLostError, ServerUnavailableError

pytestmark = pytest.mark.integration

Remote = Callable[[str], RemoteServer]


async def test_streamable_http(remote: Remote) -> None:
    server = http_server(remote("streamable-http").url, headers=[{"name": "X-Team", "value": "blue"}])
    async with connect(server) as harness:
        assert await harness.call("echo", text="hi") == "hi"
        assert await harness.call("header", name="x-team") == "blue"
        assert harness.state.protocol_version == "2026-07-28"
        assert await harness.call("grow") == "grown"
        await eventually(lambda: harness.state.tools[-1].name == "new")


async def test_headers_from_secrets(remote: Remote) -> None:
    header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "auth"}}}
    server = http_server(remote("streamable-http").url, headers=[header])
    async with connect(server, {"creds": {"auth": "Bearer t0ken"}}) as harness:
        assert await harness.call("header", name="authorization") == "Bearer t0ken"


async def test_falls_back_to_sse(remote: Remote) -> None:
    server = http_server(remote("sse").url, headers=[{"name": "X-Team", "value": "blue"}])
    async with connect(server) as harness:
        assert await harness.call("echo", text="hi") == "hi"
        assert await harness.call("header", name="x-team") == "blue"
        assert await harness.call("grow") == "grown"
        await eventually(lambda: harness.state.tools[-1].name == "new")


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_notices_an_idle_servers_end_and_reconnects(remote: Remote, transport: str) -> None:
    machine = remote(transport)
    async with connect(http_server(machine.url)) as harness:
        await harness.connected()
        machine.kill()
        await eventually(lambda: harness.state.lost)
        machine.start()
        assert await harness.call("echo", text="again") == "again"


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_a_call_whose_server_dies_has_an_unknown_outcome(remote: Remote, transport: str) -> None:
    async with connect(http_server(remote(transport).url)) as harness:
        await harness.connected()
        with pytest.raises(ConnectionLostError):
            await harness.call("die")


async def test_a_wrong_path_is_explained(remote: Remote) -> None:
    url = remote("streamable-http").url.replace("/mcp", "/wrong?key=s3cr3t")
    async with connect(http_server(url)) as harness:
        await eventually(lambda: "HTTP 404" in harness.state.error)
        assert harness.state.error.endswith("/wrong answered HTTP 404 (Not Found): check the path of spec.url.")


async def test_an_unreachable_server_is_explained() -> None:
    async with connect(http_server("http://127.0.0.1:1/mcp")) as harness:
        failure = await harness.failed()
        assert failure.error.startswith("http://127.0.0.1:1/mcp can not be reached: ")
        assert harness.state.phase is Phase.FAILED


class SessionServer:
    """An HTTP server of the older protocol, which keeps sessions in memory."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.calls = 0
        self.answers = asyncio.Event()
        """Cleared, it takes requests and answers none."""
        self.answers.set()
        self.asked_to_end = 0
        self.tools = ["count", "hold", "cut", "unavailable", "encoded"]
        self.asked_for = ""
        self.lists = 0
        self.lists_fail = False
        self.lists_answer = asyncio.Event()
        self.lists_answer.set()
        self.holds = 0
        self.let_go = asyncio.Event()
        """What the tool ``hold`` waits for."""

    async def handle_delete(self, request: web.Request) -> web.Response:
        self.asked_to_end += 1
        await self.answers.wait()
        return web.Response()

    async def handle(self, request: web.Request) -> web.Response:
        message = await request.json()
        await self.answers.wait()
        method, session = message["method"], request.headers.get("mcp-session-id")
        if method == "initialize":
            session = f"session-{len(self.sessions)}"
            self.sessions.add(session)
            result: dict[str, Any] = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "sessions", "version": "1"},
            }
        elif method == "server/discover":
            return web.Response(status=400)
        elif session not in self.sessions:
            return web.Response(status=404)
        elif "id" not in message:
            return web.Response(status=202)
        elif method == "tools/list":
            self.lists += 1
            await self.lists_answer.wait()
            if self.lists_fail:
                return web.Response(status=502)
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]}
        elif message["params"]["name"] == "encoded":
            headers = {"content-encoding": "gzip"}
            self.asked_for = request.headers["accept-encoding"]
            return web.Response(body=gzip.compress(b"{}"), content_type="application/json", headers=headers)
        elif message["params"]["name"] == "unavailable":
            return web.Response(status=503)
        elif message["params"]["name"] == "cut":
            return web.Response(text=": the answer is about to come\n\n", content_type="text/event-stream")
        elif message["params"]["name"] == "hold":
            self.holds += 1
            await self.let_go.wait()
            result = {"content": [{"type": "text", "text": "held"}]}
        else:
            self.calls += 1
            result = {"content": [{"type": "text", "text": str(self.calls)}]}
        headers = {"mcp-session-id": session or ""}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


@pytest.fixture
async def session_server() -> AsyncIterator[tuple[SessionServer, str]]:
    server = SessionServer()
    app = web.Application()
    app.router.add_post("/mcp", server.handle)
    app.router.add_delete("/mcp", server.handle_delete)
    async with serving(app) as base_url:
        yield server, f"{base_url}/mcp"


async def test_a_call_that_a_restarted_server_refuses_never_ran(session_server: tuple[SessionServer, str]) -> None:
    """It forgets its sessions with its process, and answers the next request with 404."""
    server, url = session_server
    async with connect(http_server(url), timing=Timing(first_retry=0.05)) as harness:
        assert await harness.call("count") == "1"
        session = await harness.connection.wait_session(1.0)
        server.sessions.clear()
        with pytest.raises(ConnectionLostError) as refused:
            await session.call("count", {}, {})
        assert not refused.value.may_have_run
        with pytest.raises(ConnectionLostError) as closed:
            await session.call("count", {}, {})
        assert not closed.value.may_have_run
        assert await harness.call("count") == "2"


async def test_an_encoded_answer_is_not_decoded(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    headers = [{"name": "Accept-Encoding", "value": "gzip"}]
    async with connect(http_server(url, headers=headers)) as harness:
        with pytest.raises(MCPError, match=r"the answer is encoded \(gzip\), though it was asked for as it is"):
            await harness.call("encoded")
        assert server.asked_for == "identity"
        assert await harness.call("count") == "1"
        assert not _has_failed(harness)


async def test_a_quiet_servers_lost_session_is_noticed(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url)) as harness:
        await harness.connected()
        server.sessions.clear()
        await eventually(lambda: harness.state.lost)
        await harness.connected()


async def leave_unanswered(harness: Harness, server: SessionServer) -> None:
    """The server hangs from now on, and so many calls in a row have told that it does."""
    session = await harness.connection.wait_session(PATIENCE)
    server.answers.clear()
    for _ in range(3):
        session.mark_unanswered()


async def test_a_server_that_hangs_can_not_hold_up_the_end_of_its_connection(
    session_server: tuple[SessionServer, str],
) -> None:
    """It is asked to end its session, and does not answer that either."""
    server, url = session_server
    async with connect(http_server(url), timing=Timing(first_retry=0.05, closing=2.0)) as harness:
        await leave_unanswered(harness, server)
        assert (await harness.failed()).error == "the server did not answer 3 calls in a row in time."
        assert server.asked_to_end == 1
        server.answers.set()
        assert await harness.call("count") == "1"


async def test_a_list_without_an_answer_is_the_reason_after_a_slow_end_too(
    session_server: tuple[SessionServer, str],
) -> None:
    server, url = session_server
    timing = Timing(first_retry=0.05, refresh=0.1, listing=0.1, closing=0.2)
    async with connect(http_server(url), timing=timing) as harness:
        await harness.connected()
        harness.states.clear()
        server.answers.clear()
        assert (await harness.failed()).error == "the server no longer answers."
        assert harness.state.lost


async def test_an_edit_is_followed_while_a_connection_is_closed(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url), timing=Timing(first_retry=0.05, closing=600.0)) as harness:
        await leave_unanswered(harness, server)
        await eventually(lambda: server.asked_to_end)
        server.answers = asyncio.Event()
        server.answers.set()
        edited = http_server(url + "?edited")
        edited.metadata.generation = 2
        harness.connection.update(edited)
        await eventually(lambda: harness.state.phase is Phase.CONNECTED and harness.state.generation == 2)
        assert not any(state.phase is Phase.FAILED for state in harness.states)


async def test_an_edit_of_a_server_that_hangs_is_followed(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url), timing=Timing(first_retry=0.05, closing=2.0)) as harness:
        await harness.connected()
        server.answers.clear()
        edited = http_server(url + "?edited")
        edited.metadata.generation = 2
        harness.connection.update(edited)
        await eventually(lambda: harness.state.generation == 2)
        assert server.asked_to_end == 1
        server.answers.set()
        await harness.connected()


def _has_failed(harness: Harness) -> bool:
    return any(state.phase is Phase.FAILED for state in harness.states)


async def test_a_server_that_is_busy_with_a_call_is_not_lost(session_server: tuple[SessionServer, str]) -> None:
    """It answers nothing else meanwhile. A connection on which nothing runs is lost, and tells that time has passed."""
    server, url = session_server
    timing = Timing(http_connect=0.3, first_retry=0.05, last_retry=0.05, refresh=0.1, listing=0.3, closing=0.1)
    async with connect(http_server(url), timing=timing) as busy, connect(http_server(url), timing=timing) as idle:
        await busy.connected()
        await idle.connected()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(busy.call("hold"))
            await eventually(lambda: server.holds)
            busy.states.clear()
            server.answers.clear()
            await eventually(lambda: idle.state.failures >= 3)
            server.answers.set()
            server.let_go.set()
        assert call.result() == "held"
        assert not _has_failed(busy)


async def test_a_list_that_fails_while_a_call_runs_is_made_up_for(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url), timing=Timing(spacing=0.05, refresh=0.1)) as harness:
        await harness.connected()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(harness.call("hold"))
            await eventually(lambda: server.holds)
            server.tools.append("new")
            server.lists_fail, before = True, server.lists
            with pytest.raises(MCPError, match="HTTP 503"):  # which leaves it open whether the server is there
                await harness.call("unavailable")
            await eventually(lambda: server.lists > before + 1)
            server.lists_fail = False
            await eventually(lambda: harness.state.tools[-1].name == "new")
            server.let_go.set()
        assert call.result() == "held"
        assert not _has_failed(harness)


async def test_a_lost_session_is_noticed_while_a_call_runs(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url)) as harness:
        await harness.connected()

        async def forget() -> None:
            await eventually(lambda: server.holds)
            server.sessions.clear()
            harness.connection._want_relist()

        held = asyncio.wait_for(harness.call("hold"), PATIENCE)
        outcome, _ = await asyncio.gather(held, forget(), return_exceptions=True)
        assert isinstance(outcome, ConnectionLostError)
        assert (await harness.failed()).error == "the server no longer answers."


async def test_an_answer_whose_stream_is_cut_off_ends_one_call_alone(session_server: tuple[SessionServer, str]) -> None:
    server, url = session_server
    async with connect(http_server(url)) as harness:
        await harness.connected()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(harness.call("hold"))
            await eventually(lambda: server.holds)
            with pytest.raises(ConnectionLostError) as cut:
                await harness.call("cut")
            assert cut.value.may_have_run
            assert await harness.call("count") == "1"
            server.let_go.set()
        assert call.result() == "held"
        assert not _has_failed(harness)


async def test_no_call_begins_before_a_server_that_cut_an_answer_off_is_seen_to_be_there(
    session_server: tuple[SessionServer, str],
) -> None:
    """It may have ended, and a call that it can not take would have an unknown outcome."""
    server, url = session_server
    async with connect(http_server(url)) as harness:
        await harness.connected()
        server.lists_answer.clear()
        with pytest.raises(ConnectionLostError):
            await harness.call("cut")
        with pytest.raises(ServerUnavailableError):
            await harness.connection.wait_session(0.1)
        server.lists_answer.set()
        assert await harness.call("count") == "1"
        assert not _has_failed(harness)
