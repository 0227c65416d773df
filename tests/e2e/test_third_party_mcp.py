"""MCP servers that we did not write, over every transport: an npm server over stdio, streamable HTTP and SSE.

It comes with tools for what is not plain text: pictures, resources, errors.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.scripts import Call, calls, in_turns
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import Reply
from kubechain_common.testing.eventually import eventually
from kubechain_common.testing.nats_server import free_port

needs_npx = pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed: the npm servers can not run")
pytestmark = [pytest.mark.e2e, needs_npx]

PACKAGE = "@modelcontextprotocol/server-everything"
INSTALL_SECONDS = 90.0
DONE = Reply("done")


def use(workspace: Workspace, *turns: Reply) -> dict[str, Any]:
    """A finished Task whose LLM says these turns."""
    workspace.apply_agent(workspace.serve_llm(in_turns(*turns, DONE)), servers=["everything"])
    task = workspace.run_task("use", "go")
    assert task["status"]["output"] == "done"
    return task


def ask(*wanted: Call, text: str = "") -> Reply:
    return calls(*((f"everything__{tool}", arguments) for tool, arguments in wanted), text=text)


def assert_ready_with_tools(workspace: Workspace) -> None:
    workspace.kubectl.wait("mcpserver/everything", timeout=INSTALL_SECONDS)
    status = workspace.kubectl.get("mcpserver", "everything")["status"]
    names = {tool["name"] for tool in status["tools"]}
    assert {"echo", "get-sum", "get-tiny-image"} <= names
    assert status["statusDetail"] == f"Connected successfully with {len(status['tools'])} tools"


@pytest.fixture
def everything(workspace: Workspace) -> Workspace:
    """A workspace with the server over stdio."""
    workspace.kubectl.apply(manifests.stdio_server("everything", "npx", "-y", PACKAGE))
    assert_ready_with_tools(workspace)
    return workspace


def test_over_stdio_with_all_kinds_of_results(everything: Workspace) -> None:
    """In one turn: four calls at once, answered in call order whoever ends first, and the text beside them kept."""
    slow = ("trigger-long-running-operation", {"duration": 1, "steps": 1})
    task = use(
        everything,
        ask(
            slow,
            ("get-sum", {"a": 2, "b": 40}),
            ("get-tiny-image", {}),
            ("echo", {"message": "hi"}),
            text="Let me look.",
        ),
        ask(("get-sum", {"a": "two", "b": 40})),
        ask(("get-resource-reference", {"resourceType": "Blob", "resourceId": 1})),
    )
    asked = task["status"]["contextWindow"][2]
    assert asked["content"] == "Let me look."
    assert [call["function"]["name"] for call in asked["toolCalls"]] == [
        "everything__trigger-long-running-operation",
        "everything__get-sum",
        "everything__get-tiny-image",
        "everything__echo",
    ]
    operation, total, image, echo, refused, resource = tool_messages(task)
    assert operation.startswith("Long running operation completed.")
    assert total == "The sum of 2 and 40 is 42."
    assert "[image/png, " in image
    assert "bytes]" in image
    assert echo == "Echo: hi"
    assert refused == 'Error: The arguments do not fit the tool "get-sum": "a" must be of type number, not "two".'
    assert "[resource demo://resource/" in resource
    phases = [call["status"]["phase"] for call in everything.calls_of("use")]
    assert sorted(phases) == ["Failed"] + ["Succeeded"] * 5


@contextmanager
def serving(transport: str, log: Path) -> Iterator[str]:
    """The server as a process of its own; its URL without a path."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["npx", "-y", PACKAGE, transport],
            env={**os.environ, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        eventually(lambda: b"on port" in log.read_bytes(), INSTALL_SECONDS, what=f"{PACKAGE} {transport}: {log}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # npx has a child of its own
        process.wait()


def guard(servers: BackgroundLoop, target: str, token: str) -> str:
    """A gate in front of the server that lets only the bearer of the token pass; its URL."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"error": "who are you?"}, status=401)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "authorization")}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, f"{target}{request.path_qs}", headers=headers, data=await request.read()
            ) as upstream,
        ):
            kept = {
                k: v for k, v in upstream.headers.items() if k.lower() not in ("transfer-encoding", "content-length")
            }
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return servers.serve(app)


def test_over_streamable_http_with_a_header_from_a_secret(
    workspace: Workspace, servers: BackgroundLoop, tmp_path: Path
) -> None:
    token = workspace.new_secret("bearer")
    with serving("streamableHttp", tmp_path / "server.log") as url:
        gate = guard(servers, url, token)
        workspace.kubectl.apply(
            manifests.secret("gate", header="Bearer wrong-token"),
            manifests.http_server(
                "everything", f"{gate}/mcp", headers=[manifests.from_secret("Authorization", "gate", "header")]
            ),
        )
        workspace.kubectl.wait("mcpserver/everything", "jsonpath={.status.status}=Error")
        refused = workspace.kubectl.get("mcpserver", "everything")["status"]["statusDetail"]
        assert "HTTP 401" in refused
        assert "wrong-token" not in refused
        workspace.kubectl.apply(manifests.secret("gate", header=f"Bearer {token}"))
        assert_ready_with_tools(workspace)
        task = use(workspace, ask(("echo", {"message": "over HTTP"})))
        assert tool_messages(task) == ["Echo: over HTTP"]


def test_over_sse_which_older_servers_speak(workspace: Workspace, tmp_path: Path) -> None:
    with serving("sse", tmp_path / "server.log") as url:
        workspace.kubectl.apply(manifests.http_server("everything", f"{url}/sse"))
        assert_ready_with_tools(workspace)
        task = use(workspace, ask(("get-sum", {"a": 1, "b": 2})))
        assert tool_messages(task) == ["The sum of 1 and 2 is 3."]
