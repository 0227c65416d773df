"""Connections to HTTP servers, over streamable HTTP and over SSE."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mcp_testbed import RemoteServer, connect, eventually, http_server

from kubechain_mcp_host.connection_state import Phase
from kubechain_mcp_host.errors import ConnectionLostError

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
        await eventually(lambda: "HTTP 404" in harness.state.error, 8.0)
        assert harness.state.error.endswith("/wrong answered HTTP 404 (Not Found): check the path of spec.url.")


async def test_an_unreachable_server_is_explained() -> None:
    async with connect(http_server("http://127.0.0.1:1/mcp")) as harness:
        failure = await harness.failed()
        assert failure.error.startswith("http://127.0.0.1:1/mcp can not be reached: ")
        assert harness.state.phase is Phase.FAILED
