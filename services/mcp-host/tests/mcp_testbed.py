"""Real MCP servers, and a connection to them that a test can look into."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from aiohttp import web

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connections.connection import ServerConnection
from kubechain_mcp_host.connections.state import ConnectionState, Phase, Timing
from kubechain_mcp_host.guard import landlock
from kubechain_mcp_host.stdio.environment import DEFAULT_PASSTHROUGH, build_base_environment
from kubechain_mcp_host.stdio.isolation import Isolation, plan_isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher

SERVERS = Path(__file__).parent / "mcp_servers"
FAST = Timing(first_retry=0.05, last_retry=0.2, refresh=0.5, spacing=0.1, drain=2.0)


def plain_server(*arguments: str, **spec: Any) -> MCPServer:
    """An MCPServer that runs the plain server."""
    return build_mcp_server(
        "plain", connected=False, command=sys.executable, args=[str(SERVERS / "plain_server.py"), *arguments], **spec
    )


def sdk_server(**spec: Any) -> MCPServer:
    return build_mcp_server(
        "sdk", connected=False, command=sys.executable, args=[str(SERVERS / "sdk_server.py"), "stdio"], **spec
    )


def http_server(url: str, **spec: Any) -> MCPServer:
    return build_mcp_server("remote", connected=False, transport="http", command=None, args=None, url=url, **spec)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The address of a server of this process; what it still answers at the end is not waited for."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


PATIENCE = 20.0
"""Seconds. A server is a Python process of its own, which takes long to start while others keep the machine busy."""


async def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns once the condition holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a process tells nobody that it has ended
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _find_abi() -> int:
    try:
        return landlock.find_abi()
    except OSError:
        return 0


isolated_only = pytest.mark.skipif(
    _find_abi() < landlock.WHOLE_ABI, reason="this kernel has no Landlock of ABI 6: nothing can be isolated here"
)


def isolate(data: Path, *readable: str) -> Isolation:
    """As mcp-host would isolate its servers on this machine."""
    isolation = plan_isolation(
        os.environ,
        data=data,
        extra_readable=readable,
        nats_url="nats://127.0.0.1:4222",
        min_abi=landlock.WHOLE_ABI,
    )
    assert isolation.obstacle == ""
    return isolation


class Harness:
    """A running ServerConnection, its Secrets and the states that it went through."""

    def __init__(self, server: MCPServer, timing: Timing, launcher: StdioLauncher | None) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.states: list[ConnectionState] = []
        launcher = launcher or StdioLauncher(build_base_environment(os.environ, DEFAULT_PASSTHROUGH))
        self.connection = ServerConnection(server, self._fetch, launcher, self._note, timing)

    async def _fetch(self, server: MCPServer) -> dict[str, dict[str, str]]:
        return self.secrets

    def _note(self) -> None:
        self.states.append(self.connection.state)

    @property
    def state(self) -> ConnectionState:
        return self.connection.state

    async def connected(self, seconds: float = PATIENCE) -> None:
        await eventually(lambda: self.state.phase is Phase.CONNECTED, seconds)

    async def failed(self, seconds: float = PATIENCE) -> ConnectionState:
        """The first failure."""
        await eventually(lambda: any(s.phase is Phase.FAILED for s in self.states), seconds)
        return next(s for s in self.states if s.phase is Phase.FAILED)

    async def call(self, tool: str, **arguments: object) -> str:
        session = await self.connection.wait_session(PATIENCE)
        result = await session.call(tool, dict(arguments), {"key": "call-1"})
        return "\n".join(block.text for block in result.content if block.type == "text")


@asynccontextmanager
async def connect(
    server: MCPServer,
    secrets: dict[str, dict[str, str]] | None = None,
    timing: Timing = FAST,
    launcher: StdioLauncher | None = None,
) -> AsyncIterator[Harness]:
    """The connection runs inside the context; at its end everything of it is gone."""
    harness = Harness(server, timing, launcher)
    harness.secrets.update(secrets or {})
    async with asyncio.TaskGroup() as group:
        group.create_task(harness.connection.run())
        try:
            yield harness
        finally:
            harness.connection.stop()


class RemoteServer:
    """The SDK server as an HTTP server in a process of its own."""

    def __init__(self, transport: str) -> None:
        with closing(socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.transport = transport
        self.url = f"http://127.0.0.1:{self.port}/{'sse' if transport == 'sse' else 'mcp'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(SERVERS / "sdk_server.py"), self.transport, str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
